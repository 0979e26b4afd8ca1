"""Runs `unihead-data label` in this process, and looks at what it wrote."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from tests.training.data.cli_running import run_data


def label(out: Path, pictures: Path, *teachers: Path, more: tuple[str, ...] = ()) -> int:
    given = [word for teacher in teachers for word in ("--teacher", str(teacher))]
    return run_data("label", *given, "--pictures", pictures, "--out", out, *more)


def hash_all(out: Path) -> Mapping[str, str]:
    """SHA-256 of everything that people and training see."""
    paths = (path for path in out.rglob("*") if path.is_file() and ".answers" not in path.parts)
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
