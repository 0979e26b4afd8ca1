import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.outside import find_outside
from tests.training.make_sets import write_tiny_sets
from training.config import Task, load_config
from training.data.datasets import DataSets, DataWarning
from training.data.sources import read_data
from training.data.taxonomy import MINI
from training.progress import RunProgress
from training.stages import Run


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: at 64 px more do not help, and where others use the cores they wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a small synthetic copy of the three mini sets: 6 train and 4 val pictures each; not to be changed."""
    return write_tiny_sets(tmp_path_factory.mktemp("tiny_sets"))


@pytest.fixture(scope="session")
def sets(tiny_sets: Path) -> DataSets:
    """The synthetic sets, read once."""
    return read_data(tiny_sets)


@pytest.fixture(scope="session")
def finished_run(sets: DataSets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of the preset `tiny` over the synthetic sets; takes seconds, not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    config = load_config("tiny")
    run = Run.start(config, out, torch.device("cpu"), taxonomy=MINI)
    with RunProgress(config, dict.fromkeys(Task, 6), out, Console(file=io.StringIO())) as progress:
        run.finish(sets, progress, measure_every=1)
    return out


@pytest.fixture(scope="session")
def mini_sets_root() -> Path:
    """Folder with the real mini sets, from UNIHEAD_DATA."""
    return find_outside("UNIHEAD_DATA", "data")


@pytest.fixture(scope="session")
def mini_sets(mini_sets_root: Path) -> DataSets:
    """The real mini sets, read once."""
    with pytest.warns(DataWarning, match="left out of train"):
        return read_data(mini_sets_root)
