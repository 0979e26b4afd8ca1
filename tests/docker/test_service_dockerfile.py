import fnmatch
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """Each instruction with its arguments, continued lines joined, comments left out."""
    text = (ROOT / "docker/service.Dockerfile").read_text()
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line)]


@pytest.fixture(scope="module")
def final_stage(instructions: list[tuple[str, str]]) -> dict[str, str]:
    """The last stage, by instruction; of a repeated one, the last."""
    start = max(index for index, (name, _) in enumerate(instructions) if name == "FROM")
    return dict(instructions[start:])


def is_ignored(path: str) -> bool:
    """Apply .dockerignore to a path at the top level: the last matching line decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#") and fnmatch.fnmatch(path, line.removeprefix("!")):
            ignored = not line.startswith("!")
    return ignored


def test_both_stages_use_the_same_pinned_slim_base(instructions: list[tuple[str, str]]) -> None:
    bases = {rest.split()[0] for name, rest in instructions if name == "FROM"}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+-slim-\w+(?:@sha256:[0-9a-f]{64})?", bases.pop())


def test_the_service_runs_as_a_numbered_user_that_is_not_root(final_stage: dict[str, str]) -> None:
    assert final_stage["USER"] == "10001:10001"


def test_the_service_works_in_a_folder_of_its_own_that_nothing_is_put_into(
    instructions: list[tuple[str, str]], final_stage: dict[str, str]
) -> None:
    folder = final_stage["WORKDIR"]
    assert re.fullmatch(r"/\w+", folder)
    assert [rest for name, rest in instructions if name != "WORKDIR" and folder in rest] == []


def test_the_service_gets_signals_itself_and_can_be_asked_for_its_health(final_stage: dict[str, str]) -> None:
    assert json.loads(final_stage["CMD"]) == ["unihead-serve"]
    assert json.loads(final_stage["HEALTHCHECK"].partition("CMD ")[2]) == ["unihead-serve", "health"]


def test_the_image_says_what_it_is_and_the_build_may_say_from_where(instructions: list[tuple[str, str]]) -> None:
    words = [word for name, rest in instructions if name == "LABEL" for word in shlex.split(rest)]
    labels = dict(word.removeprefix("org.opencontainers.image.").split("=", 1) for word in words)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    keys = {"title": "name", "description": "description", "licenses": "license", "version": "version"}
    stated = {label: project[key] for label, key in keys.items()}
    assert labels == stated | {"revision": "$REVISION", "created": "$CREATED"}
    assert {'REVISION=""', 'CREATED=""'} <= {rest for name, rest in instructions if name == "ARG"}


def test_the_base_keeps_no_pip(instructions: list[tuple[str, str]]) -> None:
    start = max(index for index, (name, _) in enumerate(instructions) if name == "FROM")
    assert any("pip uninstall --yes" in rest for name, rest in instructions[start:] if name == "RUN")


def test_no_layer_installs_the_training_extra(instructions: list[tuple[str, str]]) -> None:
    installs = [rest for name, rest in instructions if name == "RUN" and " install " in rest]
    assert installs
    assert not [rest for rest in installs if "[" in rest.partition(" install ")[2] or "torch" in rest]


def test_all_that_is_copied_reaches_the_build(instructions: list[tuple[str, str]]) -> None:
    copies = [rest.split()[:-1] for name, rest in instructions if name == "COPY" and not rest.startswith("--from")]
    sources = {source for copy in copies for source in copy}
    assert {"pyproject.toml", "README.md", "LICENSE", "service", "training", "export"} <= sources
    assert [source for source in sources if is_ignored(source) or not (ROOT / source).exists()] == []


@pytest.mark.parametrize("path", ["data", "runs", ".git", ".venv", "tests", "docs", ".env", "unihead.onnx"])
def test_data_secrets_and_history_stay_out_of_the_build(path: str) -> None:
    assert is_ignored(path)


def test_nothing_is_installed_that_has_not_a_hash_in_a_lock(instructions: list[tuple[str, str]]) -> None:
    commands = [command.strip() for name, rest in instructions if name == "RUN" for command in rest.split("&&")]
    installs = [command for command in commands if re.search(r"\bpip\b.*\b(?:install|wheel|download)\b", command)]
    from_registry = [command for command in installs if "--no-index" not in command.split()]
    locks = [command.partition(" --requirement ")[2] for command in from_registry]
    assert locks == ['"requirements${EXTRA:+-$EXTRA}.lock"', "requirements-build.lock"]
    assert ("ARG", 'EXTRA=""') in instructions
    assert [line for line in from_registry if " install --require-hashes --only-binary :all: " not in line] == []
    # Of our own wheel, too, nothing may be looked up.
    assert [line for line in installs if line not in from_registry and "--no-deps" not in line.split()] == []
    assert all("--no-build-isolation" in line for line in installs if " wheel " in line)
