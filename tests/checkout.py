"""What git knows of this repository, for tests that look at all of it."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def tracked_files() -> list[Path]:
    """Every tracked file, relative to the root; skip where this is no checkout, as in an unpacked release."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    # A checkout that belongs to somebody else, as on CI machines, is safe enough to list.
    command = ["git", "-c", "safe.directory=*", "ls-files"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(line) for line in done.stdout.splitlines()]
