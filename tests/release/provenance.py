"""From what, by what and when the files of a release were made: SLSA provenance, which the workflow signs."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import platform
from collections.abc import Iterable
from pathlib import Path

from tests.checkout import ROOT

# Files that say what a release is built with.
_INPUTS = (
    "docker/requirements.lock",
    "docker/requirements-build.lock",
    "docker/service.Dockerfile",
    "pyproject.toml",
)


def compute_sha256(path: Path) -> str:
    """SHA-256 of a file; 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_provenance(
    files: Iterable[Path], *, revision: str, version: str, started: dt.datetime, finished: dt.datetime
) -> str:
    """Write an in-toto statement (v1) with a SLSA provenance predicate (v1), as JSON; unsigned.

    Args:
        files: that were made.
        revision: the commit.
        version: of the release.
        started, finished: of the build, with a time zone.
    """
    materials = [{"name": name, "digest": {"sha256": compute_sha256(ROOT / name)}} for name in _INPUTS]
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": path.name, "digest": {"sha256": compute_sha256(path)}} for path in sorted(files)],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:unihead:make-release:v1",
                "externalParameters": {"command": "make release", "version": version},
                "internalParameters": {"python": platform.python_version(), "machine": platform.machine()},
                "resolvedDependencies": [{"name": "source", "digest": {"gitCommit": revision}}, *materials],
            },
            "runDetails": {
                "builder": {"id": "urn:unihead:make-release"},
                "metadata": {"startedOn": started.isoformat(), "finishedOn": finished.isoformat()},
            },
        },
    }
    return json.dumps(statement, indent=2) + "\n"


def write_sums(files: Iterable[Path], path: Path) -> None:
    """Write what `sha256sum --check` reads, for files that lie side by side."""
    path.write_text("".join(f"{compute_sha256(file)}  {file.name}\n" for file in sorted(files)), encoding="utf-8")
