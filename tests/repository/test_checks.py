"""`make check` runs every checker that we mean it to run, on every file of its kind."""

import itertools
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkout import ROOT, tracked_files

CHECKERS = {
    "ruff",
    "mypy",
    "lint-imports",
    "hadolint",
    "yamllint",
    "check-jsonschema",
    "compose-lint",
    "kubernetes-validate",
    "zizmor",
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


def is_shell_script(path: Path) -> bool:
    with (ROOT / path).open("rb") as file:
        return re.match(rb"#!.*[/ ](ba|da)?sh\b", file.readline()) is not None


@pytest.mark.parametrize(
    ("checker", "is_of_its_kind"),
    [
        ("hadolint", lambda path: "Dockerfile" in path.name),
        ("kubernetes-validate", lambda path: path.match("docker/kubernetes/*") and path.stem != "kustomization"),
        (
            "check-jsonschema",
            lambda path: path.match(".github/workflows/*") or path.match("*compose.yml") or path.suffix == ".cff",
        ),
        ("shellcheck", is_shell_script),
    ],
)
def test_a_checker_gets_every_file_of_its_kind(
    checker: str, is_of_its_kind: Callable[[Path], bool], commands: list[list[str]]
) -> None:
    words = itertools.chain(*(words[1:] for words in commands if Path(words[0]).name == checker))
    given = {path.relative_to(ROOT) for word in words for path in ROOT.glob(word)}
    due = {path for path in tracked_files() if is_of_its_kind(path)}
    assert len(due) >= 2
    assert given == due


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
