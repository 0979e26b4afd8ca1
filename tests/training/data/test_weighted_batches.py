"""Epochs in which some pictures come more often than others."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from service.pictures.imaging import UInt8Array
from tests.training.fakes import SIZE, make_config
from training.config import Config
from training.data.batches import Batch
from training.data.datasets import ClassificationSample, DetectionSample
from training.data.loaders import Batches, TaskDataset
from training.data.taxonomy import MINI
from training.data.transforms import Target
from training.options.augment import AugmentConfig

MIRRORED = AugmentConfig()
WEIGHTS = (1.0,) * 15 + (8.0,) * 5


class Numbered(TaskDataset):
    """Pictures that are nothing but their number, and black on the left: top left says whether they were mirrored."""

    def __init__(self, count: int, weights: tuple[float, ...] = (), config: Config | None = None) -> None:
        super().__init__([ClassificationSample(Path(), 0)] * count, config or make_config(), MINI, weights)

    def load(self, index: int) -> tuple[UInt8Array, Target]:
        image = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
        image[:, SIZE // 2 :] = 1
        return image, index


def draw(weights: tuple[float, ...], *, seed: int = 0, count: int = 20, endless: bool = False) -> Batches:
    rng, dataset = np.random.default_rng(seed), Numbered(count, weights)
    return Batches(dataset, make_config(), batch_size=3, options=MIRRORED, rng=rng, endless=endless)


def tell(batches: Iterator[Batch]) -> list[list[tuple[int, bool]]]:
    """The number of each picture of each batch, and whether it is mirrored."""
    return [
        list(zip(as_tensor(batch).tolist(), batch.images[:, 0, 0, 0].bool().tolist(), strict=True)) for batch in batches
    ]


def as_tensor(batch: Batch) -> Tensor:
    assert isinstance(batch.targets, Tensor)
    return batch.targets


@pytest.mark.parametrize("weights", [(), (2.0,) * 20])
def test_pictures_that_weigh_the_same_come_in_the_order_that_they_always_had(weights: tuple[float, ...]) -> None:
    rng = np.random.default_rng(7)
    order, coins = rng.permutation(20), rng.random(20) < 0.5
    drawn = [pair for batch in tell(draw(weights, seed=7)) for pair in batch]
    assert drawn == [(index, bool(coins[index])) for index in order.tolist()]


def test_an_epoch_keeps_its_length_and_its_pictures_come_as_they_weigh() -> None:
    counts = np.zeros(20)
    for seed in range(30):
        batches = tell(draw(WEIGHTS, seed=seed))
        assert [len(batch) for batch in batches] == [3] * 6 + [2]
        counts += np.bincount([number for batch in batches for number, _ in batch], minlength=20)
    assert counts[:15].mean() / 30 == pytest.approx(20 / 55, abs=0.05)
    assert counts[15:].mean() / 30 == pytest.approx(8 * 20 / 55, abs=0.15)


def test_a_picture_that_comes_twice_is_mirrored_by_two_coins() -> None:
    both = [
        {mirrored for batch in tell(draw(WEIGHTS, seed=seed)) for number, mirrored in batch if number == 19}
        for seed in range(20)
    ]
    assert {True, False} in both


@pytest.mark.parametrize("endless", [False, True])
@pytest.mark.parametrize("taken", [0, 1, 4, 7, 9])
def test_weighted_batches_go_on_from_where_they_were(taken: int, endless: bool) -> None:
    if taken > 7 and not endless:
        return
    whole = tell(islice(draw(WEIGHTS, endless=endless), 16))
    batches = draw(WEIGHTS, endless=endless)
    begun = tell(islice(batches, taken))
    state = batches.state_dict()
    resumed = draw(WEIGHTS, seed=5, endless=endless)
    resumed.load_state_dict(state)
    assert begun + tell(islice(resumed, 16 - taken)) == whole


def test_each_round_of_endless_batches_draws_anew() -> None:
    batches = tell(islice(draw(WEIGHTS, endless=True), 14))
    assert sorted(batches[:7]) != sorted(batches[7:])


def test_pictures_that_are_mixed_into_others_come_as_they_weigh_too() -> None:
    rng, dataset = np.random.default_rng(0), Numbered(20, WEIGHTS)
    picked = np.array([dataset.pick(rng)[1] for _ in range(1000)])
    assert (picked >= 15).mean() == pytest.approx(40 / 55, abs=0.05)
    plain = Numbered(20)
    assert [plain.pick(np.random.default_rng(3))[1]] == [int(np.random.default_rng(3).integers(20))]


def make_detection(*labels: int) -> DetectionSample:
    boxes, none = np.array([[0, 0, 9, 9]] * len(labels), dtype=np.float32).reshape(-1, 4), np.zeros(0, dtype=np.int64)
    return DetectionSample(Path(), boxes, np.array(labels, dtype=np.int64), np.zeros((0, 4), np.float32), none)


def test_rare_classes_come_more_often_where_the_stage_says_so_times_the_weights() -> None:
    samples = [*[make_detection(0)] * 8, make_detection(0, 1), make_detection()]
    stages = [{"task": "detection", "epochs": 1, "sampling": "class", "sampling_threshold": 0.4}]
    by_class = make_config(stages=stages)
    # A tenth of the pictures shows class 1: sqrt(0.4 / 0.1) = 2 times.
    shares = TaskDataset(samples, by_class, MINI).shares
    assert shares is not None
    assert shares == pytest.approx(np.array([1] * 8 + [2, 1]) / 11)
    weighted = TaskDataset(samples, by_class, MINI, [1.0] * 9 + [3.0]).shares
    assert weighted is not None
    assert weighted == pytest.approx(np.array([1] * 8 + [2, 3]) / 13)
    assert TaskDataset(samples, make_config(), MINI).shares is None


def test_shares_are_those_of_the_dataset_s_own_task() -> None:
    stages = [{"task": task, "epochs": 1, "sampling": "class"} for task in ("segmentation", "classification")]
    assert TaskDataset([make_detection(0), make_detection(1)], make_config(stages=stages), MINI).shares is None


def test_weighted_batches_hold_the_pictures_that_they_name() -> None:
    for batch in draw(WEIGHTS):
        assert torch.equal(batch.indices, as_tensor(batch))
