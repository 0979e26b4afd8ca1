import math

import pytest
import torch
from torch import Tensor

from training.assigner import CellTargets, assign_to_cells


def assign(boxes: list[list[float]], labels: list[int]) -> CellTargets:
    return assign_to_cells(torch.tensor(boxes).reshape(-1, 4), torch.tensor(labels), grid_size=4, stride=32)


def cells_of(targets: CellTargets) -> list[list[int]]:
    rows: list[list[int]] = targets.confidence.nonzero().tolist()
    return rows


def test_a_box_goes_to_the_cell_of_its_centre_and_to_no_other() -> None:
    targets = assign([[40, 72, 72, 136]], [5])
    assert cells_of(targets) == [[3, 1]]
    torch.testing.assert_close(targets.boxes[3, 1], torch.tensor([0.75, 0.25, 0.0, math.log(2)]))
    assert targets.labels[3, 1] == 5
    assert targets.boxes.abs().sum() == targets.boxes[3, 1].abs().sum()
    assert targets.labels.sum() == 5


def test_row_and_column_are_not_swapped() -> None:
    assert cells_of(assign([[97, 1, 127, 31]], [0])) == [[0, 3]]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_of_several_boxes_in_a_cell_the_largest_stays(order: list[int]) -> None:
    boxes = [[40.0, 40.0, 56.0, 56.0], [36.0, 36.0, 62.0, 62.0], [44.0, 36.0, 52.0, 60.0]]
    targets = assign([boxes[i] for i in order], order)
    assert cells_of(targets) == [[1, 1]]
    assert targets.labels[1, 1] == 1
    torch.testing.assert_close(targets.boxes[1, 1, 2:], torch.tensor([26 / 32, 26 / 32]).log())


def test_boxes_in_different_cells_all_stay() -> None:
    targets = assign([[0, 0, 20, 20], [100, 100, 120, 120], [0, 100, 20, 120]], [1, 2, 3])
    assert cells_of(targets) == [[0, 0], [3, 0], [3, 3]]
    assert targets.labels[[0, 3, 3], [0, 0, 3]].tolist() == [1, 3, 2]


@pytest.mark.parametrize("boxes", [torch.zeros(0, 4), torch.zeros(0, 4, dtype=torch.float64)])
def test_a_picture_without_boxes_has_empty_targets(boxes: Tensor) -> None:
    targets = assign_to_cells(boxes, torch.zeros(0, dtype=torch.long), grid_size=4, stride=32)
    assert [list(part.shape) for part in targets] == [[4, 4], [4, 4, 4], [4, 4]]
    assert not any(part.any() for part in targets)


def test_a_centre_on_the_far_edge_falls_into_the_last_cell() -> None:
    assert cells_of(assign([[127, 127, 129, 129]], [0])) == [[3, 3]]
