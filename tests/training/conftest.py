import os
from pathlib import Path

import pytest

from tests.training.make_sets import write_tiny_sets
from training.data.datasets import DataWarning, MiniSets, read_mini_sets

SHARED_DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def tiny_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a small synthetic copy of the three mini sets: 6 train and 4 val pictures each; not to be changed."""
    return write_tiny_sets(tmp_path_factory.mktemp("tiny_sets"))


@pytest.fixture(scope="session")
def mini_sets_root() -> Path:
    """Folder with the real mini sets, from UNIHEAD_DATA."""
    if root := os.environ.get("UNIHEAD_DATA"):
        return Path(root)
    if os.environ.get("CI") and SHARED_DATA.is_dir():
        pytest.fail(f"CI has the mini sets in {SHARED_DATA}, but UNIHEAD_DATA does not say so")
    pytest.skip("UNIHEAD_DATA is not set; it names the folder of the real mini sets")


@pytest.fixture(scope="session")
def mini_sets(mini_sets_root: Path) -> MiniSets:
    """The real mini sets, read once."""
    with pytest.warns(DataWarning, match="left out of train"):
        return read_mini_sets(mini_sets_root)
