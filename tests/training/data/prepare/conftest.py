from pathlib import Path

import pytest

from tests.training.data.official_trees import pack, write_official_trees
from tests.training.data.prepare.running import FEW, Run, parse


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with small official releases, unpacked; not to be changed."""
    return write_official_trees(tmp_path_factory.mktemp("official"))


@pytest.fixture(scope="session")
def archives(trees: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same releases as archives; not to be changed."""
    return pack(trees, tmp_path_factory.mktemp("packed") / "archives")


@pytest.fixture
def prepare(trees: Path) -> Run:
    """Run the command on the small releases; `words` come after the usual few totals, and win."""

    def run(out: Path, *words: object, source: Path = trees) -> int:
        options = parse("--from", source, "--out", out, *FEW, *words)
        code: int = options.run(options)
        return code

    return run
