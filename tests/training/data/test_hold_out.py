from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.fakes import make_config
from tests.training.there import there
from training.config import Task
from training.data.datasets import DataSets
from training.data.loaders import Sample, divide, hold_out


def as_set(samples: tuple[Sample, ...]) -> set[Path]:
    return {sample.image for sample in samples}


@pytest.mark.parametrize(("share", "held"), [(0.01, 1), (1 / 3, 2), (0.49, 3)])
@pytest.mark.parametrize("task", list(Task))
def test_a_share_of_the_training_pictures_is_held_out_to_measure_on(
    sets: DataSets, task: Task, share: float, held: int
) -> None:
    everything, split = sets.split(task), hold_out(sets, share).split(task)
    assert (len(split.train), len(split.val)) == (6 - held, held)
    assert as_set(split.train) | as_set(split.val) == as_set(everything.train)
    assert [sample for sample in everything.train if sample.image in as_set(split.train)] == list(split.train)


def test_who_holds_nothing_out_measures_on_the_validation_split(sets: DataSets) -> None:
    assert hold_out(sets, 0.0) is sets


def test_what_is_held_out_no_seed_decides(sets: DataSets) -> None:
    held = []
    for seed in range(3):
        np.random.seed(seed)  # noqa: NPY002 - hidden state that must not matter
        torch.manual_seed(seed)
        held.append(as_set(there(hold_out(sets, 0.3).detection).val))
    assert held[0] == held[1] == held[2]
    assert as_set(there(hold_out(sets, 1 / 6).detection).val) <= as_set(there(hold_out(sets, 1 / 2.1).detection).val)


def test_each_picture_keeps_its_weight_whatever_is_held_out(sets: DataSets) -> None:
    split = there(sets.detection)
    weights = dict(zip((sample.image for sample in split.train), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), strict=True))
    weighted = replace(sets, detection=replace(split, weights=tuple(weights.values())))
    polished = make_config(polish={"epochs": 1, "holdout": 0.3})
    for config in (make_config(holdout=0.3), polished, make_config()):
        learned, _ = divide(weighted, config)
        found = there(learned.detection)
        assert found.weights == tuple(weights[sample.image] for sample in found.train)
    assert len(there(divide(weighted, polished)[0].detection).weights) == 4
    assert there(hold_out(sets, 0.3).detection).weights == ()
