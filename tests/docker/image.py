"""Whether the service's image works as it is deployed: read-only, without rights, in 512 MiB of memory.

`make image-test` builds the image, runs it, asks it, and removes it again; `--save FILE` writes it into an archive
before, if all holds, which `docker load` reads. Exit code 0: all holds; 1: something does not; 2: this machine lacks
what is needed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from tests.docker.answers import AnswerError
from tests.docker.checks import CHECKS, CheckError
from tests.docker.container import ROOT, Container, build_image, find_base, find_revision, run_image, try_engine
from tests.docker.engine import Engine, MissingError, open_engine
from tests.docker.process import CommandError


def check_all(container: Container) -> int:
    """Make every check and print what came of it; returns how many do not hold."""
    failed = 0
    for name, check in CHECKS.items():
        try:
            print(f"ok  {name} ({check(container)})", flush=True)
        except (CheckError, CommandError, AnswerError) as error:
            failed += 1
            print(f"FAILED  {name}: {error}", flush=True)
    return failed


def save_image(engine: Engine, name: str, archive: Path) -> None:
    """Write an image into an archive, under the name and the version that its labels say.

    Raises:
        CommandError: it cannot be written.
    """
    labels = engine.inspect("image", name)["Config"]["Labels"]
    tag = ":".join(labels[f"org.opencontainers.image.{key}"] for key in ("title", "version"))
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.unlink(missing_ok=True)  # Podman writes into no file that is there
    engine.run("tag", name, tag)
    try:
        engine.run("save", "--output", str(archive), tag)
    finally:
        engine.attempt("rmi", tag)  # the image itself has another name
    print(f"{archive}: {tag}, {archive.stat().st_size / 1e6:.0f} MB", flush=True)


def main(words: Sequence[str] | None = None) -> int:
    """Build, run, check, remove; returns the exit code."""
    parser = argparse.ArgumentParser("python -m tests.docker.image", description=__doc__)
    parser.add_argument("--save", type=Path, metavar="FILE", help="archive for the image, if all holds")
    archive: Path | None = parser.parse_args(words).save
    name, revision = f"unihead-test-{uuid.uuid4().hex[:8]}", find_revision()
    started = time.monotonic()
    try:
        with open_engine(find_base(), ROOT / "build/image-test") as engine:
            try_engine(engine)
            print(f"{engine.description}, ready after {time.monotonic() - started:.0f} s", flush=True)
            built = time.monotonic()
            with build_image(engine, name, revision):
                print(f"built in {time.monotonic() - built:.0f} s", flush=True)
                run = time.monotonic()
                with run_image(engine, name, revision) as container:
                    print(f"serving {time.monotonic() - run:.0f} s later", flush=True)
                    failed = check_all(container)
                if archive is not None and not failed:
                    save_image(engine, name, archive)
    except MissingError as error:
        print(error, file=sys.stderr)
        return 2
    except CommandError as error:
        print(f"FAILED  {error}", file=sys.stderr)
        return 1
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks hold, after {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    # So that a kill, too, leaves nothing behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
