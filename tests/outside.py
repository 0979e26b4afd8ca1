"""What tests use where it is there: real data, real weights, other programs; in CI none may be forgotten."""

import os
import shutil
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[1].parent / "shared"


def choose_size(full: int, in_ci: int) -> int:
    """How much of a long test is done: all by `make test-all`, less in CI, which has half an hour for everything."""
    return in_ci if os.environ.get("CI") else full


def find_outside(variable: str, folder: str) -> Path:
    """The path in an environment variable; without it skip, but fail in CI if `../shared/<folder>` is there."""
    if path := os.environ.get(variable):
        return Path(path)
    if os.environ.get("CI") and (SHARED / folder).is_dir():
        pytest.fail(f"CI has {SHARED / folder}, but {variable} does not say so")
    pytest.skip(f"{variable} is not set; it names real {folder}")


def find_command(name: str) -> str:
    """The path of a program that a Debian package brings; without it skip, but fail in CI."""
    if path := shutil.which(name):
        return path
    if os.environ.get("CI"):
        pytest.fail(f"{name} is missing; run .ci/install-debian-packages")
    pytest.skip(f"{name} is missing; .ci/install-debian-packages brings it")
