"""`make check` runs every checker that we mean it to run, on every file of its kind."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CHECKERS = {
    "ruff",
    "mypy",
    "lint-imports",
    "hadolint",
    "yamllint",
    "check-jsonschema",
    "kubernetes-validate",
    "shellcheck",
    "docker-compose",
    "promtool",
}


@pytest.fixture(scope="module")
def commands() -> list[list[str]]:
    """The words of every command of `make check`, with docker-compose in place of the plugin of docker."""
    done = subprocess.run(
        ["make", "--dry-run", "--assume-old=venv/.dev", "check", "VENV=venv", "COMPOSE=docker-compose"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}},
        capture_output=True,
        text=True,
        check=True,
    )
    return [shlex.split(line.removeprefix(".ci/if-installed ")) for line in done.stdout.splitlines()]


def if_installed(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / ".ci/if-installed", *shlex.split(command)],
        env={"PATH": os.defpath} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_check_runs_every_checker(commands: list[list[str]]) -> None:
    assert CHECKERS - {Path(words[0]).name for words in commands} == set()


def test_a_program_that_is_there_is_run_and_its_failure_counts() -> None:
    assert if_installed("echo two words", CI="true").stdout == "two words\n"
    assert if_installed("false").returncode == 1


def test_without_the_program_a_check_is_left_out_aloud() -> None:
    done = if_installed("no-such-program --check file", CI="")
    assert done.returncode == 0
    assert "left out" in done.stdout
    assert "no-such-program --check file" in done.stdout


def test_in_ci_a_program_may_not_be_missing() -> None:
    done = if_installed("no-such-program --check file", CI="true")
    assert done.returncode == 1
    assert "run .ci/install-debian-packages" in done.stderr
