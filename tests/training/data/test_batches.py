import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.fakes import SIZE, make_batch
from training.config import Task
from training.data.batches import Batch, BoxTargets, collate, move_batch
from training.data.placement import letterboxed
from training.data.transforms import Boxes

PLACES = tuple(letterboxed((SIZE, width), SIZE) for width in (16, 32, 64))


@pytest.mark.parametrize("task", list(Task))
def test_selected_rows_come_with_what_is_wanted_of_them_and_where_they_lie(task: Task) -> None:
    batch = make_batch(task, 3)._replace(placements=PLACES)
    part = batch.select([2, 0])
    assert torch.equal(part.images, batch.images[[2, 0]])
    assert part.indices.tolist() == [2, 0]
    assert part.placements == (PLACES[2], PLACES[0])
    if isinstance(batch.targets, Tensor):
        assert isinstance(part.targets, Tensor)
        assert torch.equal(part.targets, batch.targets[[2, 0]])
    else:
        assert part.targets == (batch.targets[2], batch.targets[0])
    assert make_batch(task, 3).select([1]).placements == ()


def test_only_pictures_that_are_alone_in_their_square_are_placed() -> None:
    batch: Batch = make_batch(Task.CLASSIFICATION, 3)._replace(placements=(PLACES[0], None, PLACES[2]))
    assert batch.placed() == ([0, 2], [PLACES[0], PLACES[2]])
    assert make_batch(Task.CLASSIFICATION, 3).placed() == ([], [])


def test_scores_and_regions_of_boxes_come_with_their_batch() -> None:
    boxes, labels = np.array([[4, 8, 40, 48]], dtype=np.float32), np.array([16])
    more = Boxes(
        boxes,
        labels,
        scores=np.array([0.25], dtype=np.float32),
        ignored=boxes + 1,
        ignored_labels=np.array([3]),
        areas=boxes + 2,
        unknown=np.array([[True, False]]),
    )
    image = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    batch = move_batch(collate([(image, Boxes(boxes, labels)), (image, more)], [0, 1]), torch.device("cpu"))
    (plain, target), names = batch.targets, BoxTargets._fields
    assert isinstance(plain, BoxTargets)
    assert isinstance(target, BoxTargets)
    assert plain.scores is None
    assert [len(plain.ignored), len(plain.ignored_labels), len(plain.areas), len(plain.unknown)] == [0, 0, 0, 0]
    for name, values in zip(names, target, strict=True):
        assert values is not None
        assert np.array_equal(values.numpy(), getattr(more, name)), name
    assert batch.select([1]).targets == (target,)
