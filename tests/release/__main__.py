"""Make what is released, and check it: `make dist`, `make release` and `make version` run it."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.checkout import ROOT
from tests.docker.container import find_revision
from tests.docker.locks import BUILD_LOCK
from tests.release.archives import find_faults, read_archive, read_tracked
from tests.release.installed import try_wheel
from tests.release.provenance import make_provenance, write_sums
from tests.release.version import ReleaseError, find_notes, read_version, set_version

_DIST = ROOT / "dist"
_BESIDE = ROOT / "build/release"


def build(folder: Path = _DIST) -> list[Path]:
    """Build the source distribution and out of it the wheel, with what the build's lock pins, and check both.

    Raises:
        ReleaseError: they cannot be built, or are not as they should be.
    """
    committed = _run("git", "-c", "safe.directory=*", "log", "-1", "--format=%ct").strip()
    environment = {**os.environ, "SOURCE_DATE_EPOCH": committed}
    words = [
        "build",
        "--quiet",
        "--clear",
        "--no-create-gitignore",
        "--out-dir",
        str(folder),
        "--python",
        sys.executable,
    ]
    _run(
        *(sys.executable, "-m", "uv", *words, "--build-constraints", str(BUILD_LOCK), "--require-hashes"),
        environment=environment,
    )
    archives = sorted(folder.iterdir())
    stem = f"unihead-{read_version()}"
    if [path.name for path in archives] != [f"{stem}-py3-none-any.whl", f"{stem}.tar.gz"]:
        raise ReleaseError(f"the build made {', '.join(path.name for path in archives)}")
    _run(sys.executable, "-m", "twine", "check", "--strict", *map(str, archives))
    tracked = read_tracked()
    for path in archives:
        files = read_archive(path)
        if faults := list(find_faults(path, files, tracked)):
            raise ReleaseError(f"{path.name}:\n" + "\n".join(faults))
        print(f"ok  {path}: {len(files)} files, {path.stat().st_size / 1e6:.1f} MB; no tests, no data, all licences")
    return archives


def release(tag: str | None = None) -> None:
    """Make everything: wheel, source distribution, image, bill of materials, provenance, notes.

    Args:
        tag: that the release is made for; it must name the version.

    Raises:
        ReleaseError: the changelog has no date for this version, files differ from the commit, or a check fails.
    """
    started = dt.datetime.now(dt.UTC).replace(microsecond=0)
    version, revision = read_version(), find_revision()
    notes = find_notes(version)
    if tag is not None and tag != f"v{version}":
        raise ReleaseError(f"the tag is {tag}, and the version {version}: its tag is v{version}")
    if revision.endswith("-dirty"):
        raise ReleaseError(f"files differ from the commit {revision.removesuffix('-dirty')[:12]}: commit or stash them")
    shutil.rmtree(_BESIDE, ignore_errors=True)
    _BESIDE.mkdir(parents=True)
    archives = build()
    (wheel,) = (path for path in archives if path.suffix == ".whl")
    try_wheel(wheel, lambda line: print(line, flush=True))
    bill = _BESIDE / f"unihead-{version}.cdx.json"
    print(_run(sys.executable, "-m", "tests.docker.sbom", str(bill)).strip(), flush=True)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    image = _BESIDE / f"unihead-{version}-linux-{machine}.tar"
    print(_run(sys.executable, "-m", "tests.docker.image", "--save", str(image)).strip(), flush=True)
    made = [*archives, bill, image]
    finished = dt.datetime.now(dt.UTC).replace(microsecond=0)
    statement = make_provenance(made, revision=revision, version=version, started=started, finished=finished)
    (_BESIDE / f"unihead-{version}.provenance.json").write_text(statement, encoding="utf-8")
    write_sums(made, _BESIDE / "SHA256SUMS")
    (_BESIDE / "notes.md").write_text(notes, encoding="utf-8")
    print(
        f"{version} at {revision[:12]}, after {(finished - started).total_seconds():.0f} s: in dist/ and build/release/"
    )


def _run(*command: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"{' '.join(command)} ends with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    parser = argparse.ArgumentParser("python -m tests.release", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("dist", help="wheel and source distribution in dist/")
    commands.add_parser("release", help="all of it").add_argument("--tag", help="that it is made for, as v1.2.3")
    version = commands.add_parser("version", help="write a new version wherever it stands, and date the changelog")
    version.add_argument("version")
    today = dt.datetime.now(dt.UTC).date()
    version.add_argument("--date", type=dt.date.fromisoformat, default=today, help="default: today")
    options = parser.parse_args(words)
    try:
        if options.command == "dist":
            build()
        elif options.command == "release":
            release(options.tag or None)
        else:
            set_version(options.version, options.date)
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
