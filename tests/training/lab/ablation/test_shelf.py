from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.training.lab.ablation.tables import TINY, read_table
from training.checkpoint import load_checkpoint
from training.config import Config
from training.data.datasets import DataSets
from training.lab.ablation.run import RowTrainer
from training.lab.ablation.shelf import Shelf, describe_prefix
from training.lab.ablation.table import Experiment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shared"


def make_base(folder: Path) -> Experiment:
    return read_table(folder.parent, TINY)[0]


def make_row(folder: Path, overrides: str) -> Experiment:
    row = f'[[rows]]\nname = "row"\ndirection = "data"\nsentence = "A change"\n{overrides}\n'
    return read_table(folder.parent, TINY + row)[-1]


def count_shared(one: Config, other: Config) -> int:
    return sum(describe_prefix(one, count) == describe_prefix(other, count) for count in (1, 2))


@pytest.mark.parametrize(
    ("overrides", "shared"),
    [
        ("overrides.stages.classification.augment.rand_augment = 2", 2),
        ("overrides.polish.epochs = 1", 2),
        ("overrides.stages.detection.augment.mosaic = 0.5", 1),
        ("overrides.stages.segmentation.ema = 0.9", 0),
        ("overrides.input_size = 96", 0),
        ("overrides.model.neck_channels = 24", 0),
        ("overrides.inference.iou_threshold = 0.7", 0),  # it changes what is measured after the first stage
        ("overrides.stages.detection.ewc.strength = { segmentation = 1 }", 0),  # the first stage ends with its Fisher
    ],
)
def test_rows_share_the_stages_before_the_first_difference(folder: Path, overrides: str, shared: int) -> None:
    assert count_shared(make_base(folder).config, make_row(folder, overrides).config) == shared


def test_a_strength_of_ewc_for_what_is_learned_later_does_not_reach_back(folder: Path) -> None:
    strength = "overrides.stages.classification.ewc.strength = { detection = 1 }"
    assert count_shared(make_base(folder).config, make_row(folder, strength).config) == 1


def test_seeds_share_nothing(folder: Path) -> None:
    config = make_base(folder).config
    assert count_shared(config, config.model_copy(update={"seed": 1})) == 0


def test_what_lies_there_from_before_is_not_used(folder: Path) -> None:
    folder.mkdir()
    (folder / "old.pt").write_bytes(b"")
    Shelf(folder, [make_base(folder)], [0])
    assert not folder.exists()


@pytest.mark.slow
def test_a_row_goes_on_where_another_has_been_and_ends_as_it_would_alone(sets: DataSets, folder: Path) -> None:
    base = make_base(folder)
    row = make_row(folder, "overrides.stages.detection.augment.mosaic = 0.5")

    def train(one: Experiment, name: str, shelf: Shelf) -> Path:
        out = folder.parent / name
        RowTrainer(sets, torch.device("cpu"), weights=None, console=Console(quiet=True), shelf=shelf)(one, 1, out)
        return out / "checkpoint.pt"

    shelf = Shelf(folder, [base, row], [1])
    first = load_checkpoint(train(base, "base", shelf))
    assert len(list(folder.iterdir())) == 1  # nobody can go on from the second stage
    after = load_checkpoint(train(row, "after", shelf))
    assert after.history[:2] == first.history[:2]  # with its seconds, which no second training repeats
    alone = load_checkpoint(train(row, "alone", Shelf(folder, [row], [1])))
    assert after.config == alone.config
    assert after.model.keys() == alone.model.keys()
    assert all(torch.equal(after.model[name], alone.model[name]) for name in alone.model)
    assert repr(after.history[-1]["metrics"]) == repr(alone.history[-1]["metrics"])  # nan is not equal to itself
