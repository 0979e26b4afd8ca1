"""Every `pip install` of the documents works as it is written, before anything is published."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.checkout import ROOT
from tests.release.__main__ import build
from tests.repository.documents import DOCUMENTS, Block, read_blocks

_LINE = re.compile(r"^.*\bpip (?:--?\S+ )*install\b.*$", re.MULTILINE)
_EXTRAS = re.compile(r"\[([\w,]+)\]")
# With what it installs; the bare words are of a sentence about it.
_IN_A_SENTENCE = re.compile(r"`[^`\n]*\bpip install [^`\n]+`")
BLOCKS = [block for document in DOCUMENTS for block in read_blocks(document)]
LINES = [(block, line) for block in BLOCKS for line in _LINE.findall(block.text)]


def bring_torch(names: Iterator[str] | list[str]) -> bool:
    """Whether packages ask for torch, by what their installed distributions say."""
    waiting, seen = list(names), set[str]()
    while waiting:
        name = waiting.pop()
        if name == "torch":
            return True
        if name in seen:
            continue
        seen.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # for another system
            continue
        wanted = map(Requirement, lines)
        waiting += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return False


def find_heavy_extras() -> set[str]:
    """The extras of unihead that bring torch."""
    ours = metadata.distribution("unihead")
    wanted = [Requirement(line) for line in ours.requires or ()]
    return {
        extra
        for extra in ours.metadata.get_all("Provides-Extra", [])
        if bring_torch([one.name for one in wanted if one.marker and one.marker.evaluate({"extra": extra})])
    }


HEAVY = find_heavy_extras()


def installs_torch(line: str) -> bool:
    """Whether a line of a document installs torch."""
    extras = {extra for found in _EXTRAS.findall(line) for extra in found.split(",")}
    return bool(extras & HEAVY) or re.search(r"\btorch", line) is not None


def test_extras_that_bring_torch_are_known_by_what_they_ask_for() -> None:
    assert {"train", "teachers", "distributed"} <= HEAVY
    assert not HEAVY & {"client", "tracing", "grpc", "ray", "parquet", "completion"}


def test_documents_install_something() -> None:
    assert len(LINES) >= 8
    assert any("ls dist/" in line for _, line in LINES)


@pytest.mark.parametrize(("block", "line"), LINES, ids=[f"{block}: {line}" for block, line in LINES])
def test_what_installs_torch_bears_a_mark_and_nothing_else_does(block: Block, line: str) -> None:
    assert (block.reason == "torch") == installs_torch(line)


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_what_is_installed_stands_in_a_block_which_this_walks(document: Path) -> None:
    assert _IN_A_SENTENCE.findall((ROOT / document).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(("block", "line"), LINES, ids=[f"{block}: {line}" for block, line in LINES])
def test_nothing_is_installed_by_a_name_that_nobody_has_published(block: Block, line: str) -> None:
    assert re.search(r"""(?:^|[\s'"])unihead(?:[\s'"\[=<>~]|$)""", line.partition("install")[2]) is None, str(block)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `make dist` leaves and what the documents name, and an empty environment."""
    folder = tmp_path_factory.mktemp("installing")
    build(folder / "dist")
    (folder / "docker").mkdir()
    shutil.copy(ROOT / "docker/requirements.lock", folder / "docker")
    subprocess.run([sys.executable, "-m", "venv", folder / "environment"], check=True)
    return folder


@pytest.mark.full
@pytest.mark.parametrize("line", sorted({line for _, line in LINES if not installs_torch(line)}))
def test_every_line_that_installs_no_torch_finds_all_that_it_asks_for(line: str, folder: Path) -> None:
    path = os.pathsep.join((str(folder / "environment/bin"), os.defpath))
    # pip goes as far as to know every file that it would install.
    environment = {**os.environ, "PATH": path, "PIP_DRY_RUN": "1"}
    environment.pop("PYTHONPATH", None)
    command = [shutil.which("bash") or "bash", "-euo", "pipefail", "-c", line]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Would install " in done.stdout
