from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from service.pictures.imaging import UInt8Array, fit
from tests.training.fakes import SIZE, STRIDE, make_config
from tests.training.there import there
from training.config import Config, Task
from training.data import loaders
from training.data.batches import Batch, collate, move_batch
from training.data.datasets import ClassificationSample, DataSets, load_image
from training.data.loaders import Batches, TaskDataset, count_batches, load_sample
from training.data.taxonomy import MINI, VOID, Taxonomy
from training.data.transforms import Target, flip, to_input
from training.detection.cells import assign_to_cells, decode_cell_boxes
from training.options.augment import AugmentConfig

CONFIG = make_config()
PLAIN, MIRRORED = AugmentConfig(flip=False), AugmentConfig()


class Numbered(TaskDataset):
    """Pictures that are nothing but their number, and black on the left: top left says whether they were mirrored."""

    def __init__(self, count: int) -> None:
        super().__init__([ClassificationSample(Path(), 0)] * count, CONFIG, MINI)

    def load(self, index: int) -> tuple[UInt8Array, Target]:
        image = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
        image[:, SIZE // 2 :] = 1
        return image, index


def batches_of(
    count: int, *, batch_size: int = 2, seed: int = 0, options: AugmentConfig = PLAIN, config: Config = CONFIG
) -> list[Batch]:
    rng = np.random.default_rng(seed)
    return list(Batches(Numbered(count), config, batch_size=batch_size, options=options, rng=rng))


def numbers(batches: list[Batch]) -> list[int]:
    return [int(number) for batch in batches for number in as_tensor(batch)]


def as_tensor(batch: Batch) -> Tensor:
    assert isinstance(batch.targets, Tensor)
    return batch.targets


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.images, other.images)
        if isinstance(one.targets, Tensor):
            assert torch.equal(one.targets, as_tensor(other))
        else:
            assert not isinstance(other.targets, Tensor)
            for target, again in zip(one.targets, other.targets, strict=True):
                assert (target.scores is None) == (again.scores is None)
                pairs = ((a, b) for a, b in zip(target, again, strict=True) if a is not None and b is not None)
                assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(6, 2, [2, 2, 2]), (6, 4, [4, 2]), (6, 5, [6]), (7, 3, [3, 4]), (1, 4, [1]), (3, 8, [3]), (9, 8, [9])],
)
def test_a_short_last_batch_is_kept_but_never_of_a_single_picture(
    count: int, batch_size: int, sizes: list[int]
) -> None:
    assert [len(batch.images) for batch in batches_of(count, batch_size=batch_size)] == sizes
    assert count_batches(count, batch_size) == len(sizes)


@pytest.mark.parametrize("batch_size", range(1, 7))
def test_an_epoch_shows_each_picture_once_and_in_as_many_batches_as_counted(batch_size: int) -> None:
    for count in range(1, 14):
        batches = batches_of(count, batch_size=batch_size)
        assert sorted(numbers(batches)) == list(range(count))
        assert len(batches) == count_batches(count, batch_size)


def test_the_generator_decides_the_order_and_the_mirroring() -> None:
    first, again, other = (batches_of(20, options=MIRRORED, seed=seed) for seed in (1, 1, 2))
    assert_same(first, again)
    assert numbers(first) != numbers(other)
    assert numbers(first) != list(range(20))


def test_mirroring_is_a_coin_or_off() -> None:
    heads = sum(int(batch.images[:, 0, 0, 0].sum()) for batch in batches_of(400, options=MIRRORED))
    assert 150 < heads < 250
    assert not any(batch.images[:, 0, 0].any() for batch in batches_of(400))


def test_whether_pictures_are_mirrored_does_not_change_their_order() -> None:
    assert numbers(batches_of(20, options=MIRRORED)) == numbers(batches_of(20))


@pytest.mark.parametrize("task", list(Task))
def test_each_task_has_its_own_split(sets: DataSets, task: Task) -> None:
    assert sets.split(task) is getattr(sets, task.value)


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("options", [PLAIN, MIRRORED])
def test_the_same_examples_come_with_and_without_a_cache(sets: DataSets, task: Task, options: AugmentConfig) -> None:
    kept = TaskDataset(sets.split(task).train, CONFIG, MINI)
    fresh = TaskDataset(sets.split(task).train, make_config(cache_mib=0), MINI)

    def go_through(dataset: TaskDataset) -> list[Batch]:
        rng = np.random.default_rng(0)
        return list(Batches(dataset, CONFIG, batch_size=1, options=options, rng=rng))

    for _ in range(2):
        assert_same(go_through(kept), go_through(fresh))


@pytest.mark.parametrize(("cache_mib", "decoded"), [(0, 3 * 4), (1, 1 + 3 * 3), (2, 2 + 3 * 2), (64, 4)])
def test_the_cache_keeps_what_fits_and_no_more(monkeypatch: pytest.MonkeyPatch, cache_mib: int, decoded: int) -> None:
    calls: Counter[int] = Counter()

    def load(sample: loaders.Sample, _: Taxonomy) -> tuple[UInt8Array, Target]:
        assert isinstance(sample, ClassificationSample)
        calls[sample.label] += 1
        return np.zeros((512, 512, 3), dtype=np.uint8), sample.label  # 0.75 MiB

    monkeypatch.setattr(loaders, "load_sample", load)
    dataset = TaskDataset([ClassificationSample(Path(), i) for i in range(4)], make_config(cache_mib=cache_mib), MINI)
    for _ in range(3):
        assert [dataset.load(index)[1] for index in range(4)] == [0, 1, 2, 3]
    assert calls.total() == decoded


def test_segmentation_batches_hold_masks_at_their_stride_with_void_on_the_padding(sets: DataSets) -> None:
    dataset = TaskDataset(there(sets.segmentation).train, CONFIG, MINI)
    batch = dataset.make_batch(range(6))
    assert batch.images.shape == (6, SIZE, SIZE, 3)
    assert batch.images.dtype == torch.uint8
    masks = as_tensor(batch)
    assert (masks.shape, masks.dtype) == ((6, SIZE // 4, SIZE // 4), torch.long)
    assert {0, VOID} < set(masks.flatten().tolist()) <= {0, 8, 12, 15, VOID}


def test_classification_batches_hold_class_ids(sets: DataSets) -> None:
    dataset = TaskDataset(there(sets.classification).train, CONFIG, MINI)
    labels = as_tensor(dataset.make_batch(range(6)))
    assert labels.dtype == torch.long
    assert labels.tolist() == [sample.label for sample in there(sets.classification).train]


@pytest.mark.parametrize("mirrored", [False, True])
def test_detection_targets_are_the_boxes_on_disk_and_cells_decode_to_them(sets: DataSets, mirrored: bool) -> None:
    """Fails where xywh is taken for xyxy, a box is not scaled, or not mirrored with its picture."""
    samples = there(sets.detection).train
    dataset = TaskDataset(samples, CONFIG, MINI)
    examples = [dataset.load(index) for index in range(len(samples))]
    pictures = [to_input(*(flip(*one) if mirrored else one), size=SIZE, mask_stride=4) for one in examples]
    batch = collate(pictures, range(len(samples)))
    assert not isinstance(batch.targets, Tensor)
    assert not len(samples[-1].boxes)
    for sample, target in zip(samples, batch.targets, strict=True):
        height, width = load_image(sample.image).shape[:2]
        boxes = sample.boxes.copy()
        if mirrored:
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        expected = {
            tuple(np.round(box, 2)): label
            for box, label in zip(fit(width, height, SIZE).boxes_to_input(boxes), sample.labels.tolist(), strict=True)
        }
        listed = zip(target.boxes.numpy(), target.labels.tolist(), strict=True)
        assert {tuple(np.round(box, 2)): label for box, label in listed} == expected
        cells = assign_to_cells(target.boxes, target.labels, grid_size=SIZE // STRIDE, stride=STRIDE)
        found = cells.confidence.flatten() > 0
        raw = torch.cat([cells.boxes[..., :2].logit(), cells.boxes[..., 2:]], dim=-1).permute(2, 0, 1)[None]
        decoded = decode_cell_boxes(raw, STRIDE)[0][found].numpy()
        for box, label in zip(decoded, cells.labels.flatten()[found].tolist(), strict=True):
            nearest = min(expected, key=lambda other: float(np.abs(np.array(other) - box).max()))
            np.testing.assert_allclose(box, nearest, atol=0.02)
            assert expected[nearest] == label
        assert bool(found.any()) == bool(len(boxes))


@pytest.mark.parametrize("task", list(Task))
def test_a_batch_knows_the_rows_of_its_pictures(sets: DataSets, task: Task) -> None:
    dataset = TaskDataset(sets.split(task).train, CONFIG, MINI)
    rng = np.random.default_rng(3)
    for batch in Batches(dataset, CONFIG, batch_size=4, options=PLAIN, rng=rng):
        assert_same([batch], [dataset.make_batch(batch.indices.tolist())])
    assert dataset.make_batch([4, 1]).indices.tolist() == [4, 1]


@pytest.mark.parametrize("task", list(Task))
def test_a_moved_batch_is_the_same_batch(sets: DataSets, task: Task) -> None:
    batch = TaskDataset(sets.split(task).train, CONFIG, MINI).make_batch(range(3))
    moved = move_batch(batch, torch.device("cpu"))
    assert_same([moved], [batch])
    assert torch.equal(moved.indices, batch.indices)


def test_a_batch_has_one_of_the_sizes_and_each_comes_up() -> None:
    options = AugmentConfig(sizes=(32, 64, 96))
    sizes = [tuple(batch.images.shape[1:3]) for batch in batches_of(60, options=options)]
    assert set(sizes) == {(32, 32), (64, 64), (96, 96)}
    assert sizes == [tuple(batch.images.shape[1:3]) for batch in batches_of(60, options=options)]
    assert sorted(numbers(batches_of(60, options=options))) == list(range(60))


def test_masks_and_boxes_have_the_size_of_their_batch(sets: DataSets) -> None:
    options = AugmentConfig(sizes=(128,), flip=False)

    def only(task: Task) -> Batch:
        dataset = TaskDataset(sets.split(task).train, CONFIG, MINI)
        rng = np.random.default_rng(0)
        (batch,) = Batches(dataset, CONFIG, batch_size=6, options=options, rng=rng)
        assert batch.images.shape[1:3] == (128, 128)
        return batch

    assert as_tensor(only(Task.SEGMENTATION)).shape == (6, 128 // 4, 128 // 4)
    batch = only(Task.DETECTION)
    small = TaskDataset(there(sets.detection).train, CONFIG, MINI).make_batch(batch.indices.tolist())
    assert not isinstance(batch.targets, Tensor)
    assert not isinstance(small.targets, Tensor)
    for large_target, target in zip(batch.targets, small.targets, strict=True):
        # The shorter side is rounded to a pixel, before it is doubled or after.
        torch.testing.assert_close(large_target.boxes, 2 * target.boxes, atol=1.0, rtol=0)


def test_any_picture_may_be_picked_and_each_comes_up() -> None:
    dataset, rng = Numbered(5), np.random.default_rng(0)
    assert {dataset.pick(rng)[1] for _ in range(60)} == set(range(5))


def test_a_class_weighs_one_by_the_share_of_pictures_that_show_it(sets: DataSets) -> None:
    dataset = TaskDataset(there(sets.detection).train, CONFIG, MINI)
    weights = dataset.class_weights
    assert weights is not None
    shown = [set(sample.labels.tolist()) for sample in there(sets.detection).train]
    for label in set().union(*shown):
        assert weights[label] == pytest.approx(6 / sum(label in labels for labels in shown))
    masks = TaskDataset(there(sets.segmentation).train, CONFIG, MINI).class_weights
    assert masks is not None
    assert masks[0] == 1  # background is in every picture
    assert TaskDataset(there(sets.classification).train, CONFIG, MINI).class_weights is None


def test_a_sample_is_decoded_at_its_own_size(sets: DataSets) -> None:
    sample = there(sets.segmentation).val[0]
    image, target = load_sample(sample, MINI)
    assert isinstance(target, np.ndarray)
    assert np.array_equal(image, load_image(sample.image))
    assert target.shape == image.shape[:2]
