from pathlib import Path

import numpy as np
import pytest

from service.pictures.imaging import UInt8Array
from tests.training.fakes import make_config
from training.data.datasets import ClassificationSample
from training.data.feed import dataset as dataset_module
from training.data.feed.cache import PictureCache
from training.data.feed.dataset import Sample, TaskDataset
from training.data.taxonomy import MINI, Taxonomy
from training.data.transforms import Target

CONFIG = make_config()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The labels of the pictures that were decoded, each of 0.75 MiB."""
    labels: list[int] = []

    def load(sample: Sample, _: Taxonomy) -> tuple[UInt8Array, Target]:
        assert isinstance(sample, ClassificationSample)
        labels.append(sample.label)
        return np.zeros((512, 512, 3), dtype=np.uint8), sample.label

    monkeypatch.setattr(dataset_module, "load_sample", load)
    return labels


def make_dataset(labels: range, cache: PictureCache) -> TaskDataset:
    return TaskDataset([ClassificationSample(Path(), label) for label in labels], CONFIG, MINI, cache=cache)


def go_round(dataset: TaskDataset, times: int = 1) -> list[Target]:
    return [dataset.load(index)[1] for _ in range(times) for index in range(len(dataset))]


@pytest.mark.parametrize(("mib", "count"), [(0, 3 * 4), (1, 1 + 3 * 3), (2, 2 + 3 * 2), (64, 4)])
def test_what_fits_is_kept_and_no_more(decoded: list[int], mib: int, count: int) -> None:
    assert go_round(make_dataset(range(4), PictureCache(mib)), 3) == [0, 1, 2, 3] * 3
    assert len(decoded) == count


def test_two_sets_share_what_there_is(decoded: list[int]) -> None:
    cache = PictureCache(3)  # four pictures
    one, other = make_dataset(range(3), cache), make_dataset(range(10, 13), cache)
    go_round(one)
    go_round(other)
    decoded.clear()
    assert go_round(one) + go_round(other) == [0, 1, 2, 10, 11, 12]
    assert decoded == [11, 12]


def test_what_nobody_asks_for_any_more_makes_room(decoded: list[int]) -> None:
    cache = PictureCache(3)
    over, under_way = make_dataset(range(4), cache), make_dataset(range(10, 14), cache)
    go_round(over)
    go_round(under_way, 3)
    decoded.clear()
    assert go_round(under_way) == [10, 11, 12, 13]
    assert decoded == []
    assert go_round(over) == [0, 1, 2, 3]
    assert decoded == [0, 1, 2, 3]


def test_sets_that_are_learned_together_leave_each_other_what_they_have(decoded: list[int]) -> None:
    cache = PictureCache(3)
    sets = [make_dataset(range(start, start + 4), cache) for start in (0, 10)]
    for _ in range(5):
        decoded.clear()
        for index in range(4):
            for each in sets:
                each.load(index)
    assert sorted(decoded) == [2, 3, 12, 13]


def test_a_picture_larger_than_all_there_is_displaces_nothing(
    decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PictureCache(2)
    small, large = make_dataset(range(2), cache), make_dataset(range(10, 12), cache)
    go_round(small)
    monkeypatch.setattr(dataset_module, "load_sample", lambda *_: (np.zeros((2048, 2048, 3), dtype=np.uint8), 10))
    go_round(large, 5)
    decoded.clear()
    assert go_round(small) == [0, 1]
    assert decoded == []
