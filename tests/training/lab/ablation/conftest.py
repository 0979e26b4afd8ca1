from pathlib import Path

import pytest

from tests.training.lab.ablation.tables import MORE, TINY, read_table
from training.lab.ablation.table import Experiment


@pytest.fixture
def table(tmp_path: Path) -> tuple[Experiment, ...]:
    """The base, `pan`, `ewc` and `mosaic`."""
    return read_table(tmp_path, TINY + MORE)
