import pytest
import torch
from torch import Tensor

from tests.training.fakes import SIZE, make_batch
from training.config import Task
from training.data.batches import Batch
from training.data.placement import letterboxed

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
