"""What is in a wheel and a source distribution: what git has of the packages, and nothing else."""

from __future__ import annotations

import email
import email.message
import re
import subprocess
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from tests.checkout import ROOT

_TARGETS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
PACKAGES = frozenset(_TARGETS["wheel"]["packages"])
# The last two hatchling puts into every source distribution.
_SOURCES = frozenset(name.strip("/").partition("/")[0] for name in _TARGETS["sdist"]["include"]) | {
    "pyproject.toml",
    ".gitignore",
}
# What a build hook makes of a .proto file.
_GENERATED = re.compile(r"_pb2(?:_grpc)?\.pyi?$")
_METADATA = re.compile(r"^unihead-[^/]+\.dist-info/|^PKG-INFO$")
_TESTS = re.compile(r"(?:^|/)(?:tests?/|test_[^/]*\.py$|[^/]*_test\.py$|conftest\.py$)")
_DATA = frozenset(
    (
        *(".csv", ".db", ".env", ".gz", ".h5", ".ipynb", ".jsonl", ".key", ".keys", ".log", ".npy", ".npz", ".parquet"),
        *(".pem", ".pkl", ".pt", ".pth", ".pyc", ".safetensors", ".tar", ".zip"),
    )
)
# The embedded model and the pictures that its answers are known about.
_MODELS, _PICTURES = frozenset({".onnx"}), frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"})
_LICENCE = re.compile(r"(?:^|/|\.)(?:LICEN[CS]E|NOTICE|COPYING)(?:\.\w+)?$")
_MOST_BYTES = 16 * 2**20

Files = Mapping[str, bytes]


def read_archive(path: Path) -> dict[str, bytes]:
    """All files of a .whl or .tar.gz by their paths, without the folder that a source distribution has around them."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist() if not name.endswith("/")}
    files = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if not member.isdir():
                # A link has no bytes of its own, and no business there.
                content = archive.extractfile(member) if member.isreg() else None
                files[member.name.partition("/")[2]] = b"" if content is None else content.read()
    return files


def read_tracked(root: Path = ROOT) -> dict[str, bytes]:
    """Every file that git knows, as it lies in the checkout."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    names = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")
    return {name: (root / name).read_bytes() for name in names if (root / name).is_file()}


def find_faults(archive: Path, files: Files, tracked: Files) -> Iterator[str]:
    """Sentences about what should not be in an archive, or lacks in it.

    Args:
        archive: a .whl or .tar.gz; only its name and size are looked at.
        files: in it.
        tracked: what git has.
    """
    if archive.stat().st_size > _MOST_BYTES:
        yield f"{archive.name} has {archive.stat().st_size} bytes, more than {_MOST_BYTES}"
    tops = PACKAGES if archive.suffix == ".whl" else _SOURCES
    for name, content in files.items():
        if not _METADATA.search(name):
            yield from _find_faults_of_file(name, content, tops, tracked)
    for name in tracked:
        # Data that git keeps beside the code stay out of what is shipped.
        if name.partition("/")[0] in PACKAGES and name not in files and _find_kind_of_data(name) is None:
            yield f"{name} is missing"
    yield from _find_faults_of_metadata(archive, files, tracked)


def _find_faults_of_file(name: str, content: bytes, tops: frozenset[str], tracked: Files) -> Iterator[str]:
    if name.partition("/")[0] not in tops:
        yield f"{name} lies outside {', '.join(sorted(tops))}"
    if _TESTS.search(name):
        yield f"{name} is a test"
    if (kind := _find_kind_of_data(name)) is not None:
        yield f"{name} is {kind}"
    if name in tracked:
        if tracked[name] != content:
            yield f"{name} has other bytes than the checkout"
    elif not _GENERATED.search(name):
        yield f"{name} is not known to git"


def _find_kind_of_data(name: str) -> str | None:
    path = PurePosixPath(name)
    if path.suffix in _DATA:
        return "data"
    if path.suffix in _MODELS and name != "service/models/unihead.onnx":
        return "a model, and not the embedded one"
    if path.suffix in _PICTURES and path.parent != PurePosixPath("service/models/golden"):
        return "a picture, and not one of the golden ones"
    return None


def _find_faults_of_metadata(archive: Path, files: Files, tracked: Files) -> Iterator[str]:
    project = tomllib.loads(tracked["pyproject.toml"].decode())["project"]
    stem = f"unihead-{project['version']}"
    folder = f"{stem}.dist-info/licenses/" if archive.suffix == ".whl" else ""
    place = f"{stem}.dist-info/METADATA" if archive.suffix == ".whl" else "PKG-INFO"
    if place not in files:
        yield f"{place} is missing"
        return
    metadata: email.message.Message = email.message_from_bytes(files[place])
    for key, wanted in (
        ("Name", project["name"]),
        ("Version", project["version"]),
        ("License-Expression", project["license"]),
        ("Requires-Python", project["requires-python"]),
    ):
        if metadata[key] != wanted:
            yield f"{place} says {key}: {metadata[key]}, pyproject.toml {wanted}"
    stated = set(metadata.get_all("License-File", []))
    wanted = {
        name for name in tracked if _LICENCE.search(name) and (name == "LICENSE" or name.partition("/")[0] in PACKAGES)
    }
    for name in sorted(wanted ^ stated):
        yield f"{name} is {'no licence file of the checkout' if name in stated else 'not among the licence files'}"
    for name in sorted(wanted & stated):
        if files.get(f"{folder}{name}") != tracked[name]:
            yield f"{folder}{name} is missing, or another text"
