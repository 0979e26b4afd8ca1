"""What the documents say is so: every block of code runs, every block of data is some, every code has its line."""

import json
import shutil
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from service.commands.spawn import Spawned, spawn_service
from tests.outside import find_command
from tests.repository.documents import (
    DATA,
    DOCUMENTS,
    GOLDEN,
    LANGUAGES,
    PROGRAMS,
    REASONS,
    RUN,
    Block,
    is_runnable,
    read_blocks,
    run_block,
    write_commands,
)
from tests.training.data.labelling.shown import write_shown
from tests.training.make_sets import write_tiny_sets
from training.data.doctor.codes import CODES
from training.data.doctor.findings import REPAIRED_CODES

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = [block for document in DOCUMENTS for block in read_blocks(document)]
RUNNABLE = [block for block in BLOCKS if block.language in RUN and block.reason is None]
PARSERS: dict[str, Callable[[str], Any]] = {"json": json.loads, "yaml": yaml.safe_load, "toml": tomllib.loads}

Told = Callable[[str, object], None]


@pytest.fixture(scope="module")
def service() -> Iterator[Spawned]:
    with spawn_service(["--log-level", "warning"]) as spawned:
        yield spawned


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands") / "bin"
    write_commands(folder)
    return folder


@pytest.fixture(scope="module")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_sets(tmp_path_factory.mktemp("sets"))


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_says_what_it_is(block: Block) -> None:
    assert block.language in LANGUAGES
    assert block.text.strip()
    assert block.reason is None or (block.reason in REASONS and block.language in RUN)


def test_blocks_that_are_not_run_say_why(record_property: Told) -> None:
    marked = [block for block in BLOCKS if block.reason is not None]
    assert len(RUNNABLE) > len(marked)
    for block in marked:
        assert block.reason is not None
        record_property("not run", f"{block}  {block.reason}: {REASONS[block.reason]}")


@pytest.mark.slow
@pytest.mark.parametrize("document", sorted({block.document for block in RUNNABLE}), ids=str)
def test_every_block_of_code_runs(
    document: Path, service: Spawned, commands: Path, small_data: Path, tmp_path: Path, record_property: Told
) -> None:
    # As somebody reads it: top to bottom, in one folder that holds a picture, data, and teachers for labelling.
    shutil.copy(GOLDEN / "chelsea.jpg", tmp_path / "photo.jpg")
    shutil.copytree(GOLDEN, tmp_path / "pictures")
    shutil.copytree(small_data, tmp_path / "data")
    write_shown(tmp_path / "teachers")
    for block in RUNNABLE:
        if block.document == document and not is_runnable(block):
            record_property("not run", f"{block}  {PROGRAMS[block.language]} is not installed")
        elif block.document == document:
            started = time.monotonic()
            run_block(block, tmp_path, commands, service.port)
            record_property("run", f"{block}  {time.monotonic() - started:.1f} s")


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in DATA], ids=str)
def test_every_block_of_data_is_what_it_says(block: Block) -> None:
    assert PARSERS[block.language](block.text) is not None


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "promql"], ids=str)
def test_prometheus_understands_every_query(block: Block, tmp_path: Path) -> None:
    rules = {"groups": [{"name": "document", "rules": [{"record": "document:query", "expr": block.text}]}]}
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump(rules))
    done = subprocess.run(
        [find_command("promtool"), "check", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_answer_in_the_readme_is_the_real_one(service: Spawned) -> None:
    (block,) = (block for block in BLOCKS if str(block.document) == "README.md" and block.language == "json")
    shown = json.loads(block.text)
    url = f"http://127.0.0.1:{service.port}/predict?mask=none&top_k=1"
    answer = httpx.post(
        url, content=(GOLDEN / "chelsea.jpg").read_bytes(), headers={"Cache-Control": "no-cache"}
    ).json()
    assert shown["timing_ms"].keys() == answer["timing_ms"].keys()
    for one in (shown, answer):
        del one["timing_ms"]
    assert round_numbers(shown) == round_numbers(answer)


def round_numbers(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """To what another processor says too."""
    if isinstance(value, dict):
        return {name: round_numbers(one) for name, one in value.items()}
    if isinstance(value, list):
        return [round_numbers(one) for one in value]
    return pytest.approx(value, rel=1e-3, abs=0.02) if isinstance(value, float) else value


@pytest.mark.parametrize("code", CODES)
def test_every_code_of_the_doctor_is_documented(code: str) -> None:
    severity, title = CODES[code]
    repaired = "yes" if code in REPAIRED_CODES else ""
    assert f"| `{code}`: {title} | {severity.value} | {repaired} |" in (DOCS / "data.md").read_text(encoding="utf-8")


def test_a_mark_belongs_to_the_block_behind_it() -> None:
    marked = "<!-- not run: docker -->\n\n```bash\na\n```\n"
    others = "\n```python\nb\n```\n\n<!-- not run: gpu -->\nwords\n\n```bash\nc\n```\n"
    blocks = read_blocks(Path("page.md"), marked + others)
    assert [(block.line, block.language, block.text, block.reason) for block in blocks] == [
        (3, "bash", "a", "docker"),
        (7, "python", "b", None),
        (14, "bash", "c", None),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("bash", "false"),
        ("bash", "curl localhost:8000/no-such-path"),
        ("bash", "unihead-serve --port nowhere"),
        ("bash", "unihead-data doctor no-such-folder"),
        ("python", "import no_such_module"),
    ],
)
def test_a_block_that_fails_is_seen(language: str, text: str, service: Spawned, commands: Path, tmp_path: Path) -> None:
    (block,) = read_blocks(Path("page.md"), f"```{language}\n{text}\n```\n")
    with pytest.raises(AssertionError, match=r"page.md:1 ends with"):
        run_block(block, tmp_path, commands, service.port)
