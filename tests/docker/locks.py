"""What the service's image pins: its Python, and the packages of docker/*.lock with versions and hashes."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
SERVICE_LOCK = ROOT / "docker/requirements.lock"
TRACING_LOCK = ROOT / "docker/requirements-tracing.lock"
GRPC_LOCK = ROOT / "docker/requirements-grpc.lock"
BUILD_LOCK = ROOT / "docker/requirements-build.lock"

_HASH = re.compile(r" --hash=sha256:([0-9a-f]{64})(?= |$)")


def find_python() -> str:
    """Python's version in the service's image, as in "3.12"."""
    match = re.search(r"^FROM python:(\d+\.\d+)-", (ROOT / "docker/service.Dockerfile").read_text(), re.MULTILINE)
    if match is None:
        raise ValueError("docker/service.Dockerfile is not built on a python:X.Y- image")
    return match[1]


def read_lock(path: Path) -> dict[NormalizedName, tuple[Version, list[str]]]:
    """Read a lock file.

    Args:
        path: requirements with hashes, as uv and pip-tools write them.

    Returns:
        Version and SHA-256 hashes of each package.

    Raises:
        ValueError: a line is anything but a package with one exact version and at least one hash.
    """
    lines = re.sub(r"^ *#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    pinned: dict[NormalizedName, tuple[Version, list[str]]] = {}
    for line in lines.replace("\\\n", " ").splitlines():
        words = re.sub(r" +", " ", line)
        hashes = _HASH.findall(words)
        requirement = Requirement(_HASH.sub("", words))
        versions = [Version(part.version) for part in requirement.specifier if part.operator == "=="]
        name = canonicalize_name(requirement.name)
        if len(versions) != 1 or len(requirement.specifier) != 1 or not hashes or requirement.url or name in pinned:
            raise ValueError(f"{path.name} does not pin one version of {name} with hashes: {line}")
        pinned[name] = (versions[0], hashes)
    return pinned
