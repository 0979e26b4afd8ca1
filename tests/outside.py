"""Real data and weights, which tests use where the environment names them; in CI they may not be forgotten."""

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[1].parent / "shared"


def find_outside(variable: str, folder: str) -> Path:
    """The path in an environment variable; without it skip, but fail in CI if `../shared/<folder>` is there."""
    if path := os.environ.get(variable):
        return Path(path)
    if os.environ.get("CI") and (SHARED / folder).is_dir():
        pytest.fail(f"CI has {SHARED / folder}, but {variable} does not say so")
    pytest.skip(f"{variable} is not set; it names real {folder}")
