import torch
from torch import Tensor

from training.data.batches import BoxTargets
from training.detection.assigners import (
    Assignment,
    assign_batch,
    assign_by_centre,
    assign_task_aligned,
    make_size_ranges,
)
from training.detection.points import make_points
from training.options.model import PointDetectionConfig

GRID = make_points(64, (8, 16, 32), torch.device("cpu"))
POINTS, STRIDES = GRID
TARGETS = [
    BoxTargets(
        torch.tensor([[4.0, 6.0, 30.0, 34.0], [36.0, 30.0, 60.0, 62.0], [40.0, 4.0, 44.0, 9.0]]),
        torch.tensor([1, 0, 1]),
    ),
    BoxTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)),
    BoxTargets(torch.tensor([[10.0, 10.0, 50.0, 40.0], [2.0, 44.0, 20.0, 60.0]]), torch.tensor([1, 1])),
]


def make_predictions() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    sides = torch.rand(3, len(POINTS), 4, generator=generator) * 4 * STRIDES[:, None]
    boxes = torch.cat([POINTS - sides[..., :2], POINTS + sides[..., 2:]], dim=-1)
    return torch.randn(3, len(POINTS), 2, generator=generator), boxes


def assign(config: PointDetectionConfig, *, progress: float) -> Assignment:
    logits, boxes = make_predictions()
    return assign_batch(logits.requires_grad_(), boxes, TARGETS, GRID, config, progress=progress)


def same(one: Assignment, other: Assignment) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_batch_is_assigned_picture_by_picture() -> None:
    logits, boxes = make_predictions()
    centre = assign(PointDetectionConfig(centre_radius=2.5, reach=2), progress=1)
    aligned = assign(PointDetectionConfig(assigner="task_aligned", top_k=4), progress=1)
    for n, target in enumerate(TARGETS):
        alone = assign_by_centre(target.boxes, GRID, make_size_ranges(STRIDES, 2), radius=2.5)
        assert same(Assignment(*(part[n] for part in centre)), alone)
        alone = assign_task_aligned(target, logits[n].sigmoid(), boxes[n], GRID, top_k=4)
        assert same(Assignment(*(part[n] for part in aligned)), alone)
    assert not any(part.requires_grad for part in (*centre, *aligned))


def test_task_alignment_begins_after_the_warm_up() -> None:
    config = PointDetectionConfig(assigner="task_aligned", warmup=0.25)
    centre = assign(PointDetectionConfig(), progress=0)
    aligned = assign(PointDetectionConfig(assigner="task_aligned", warmup=0), progress=0)
    assert not same(centre, aligned)
    assert same(assign(config, progress=0.249), centre)
    assert same(assign(config, progress=0.25), aligned)


def test_gathered_rows_belong_to_the_boxes_of_the_assigned_points() -> None:
    assignment = assign(PointDetectionConfig(), progress=0)
    names = [
        torch.tensor([[10.0 * n + m, n] for m in range(len(t.boxes))]).reshape(-1, 2) for n, t in enumerate(TARGETS)
    ]
    pictures, points = (assignment.box_index >= 0).nonzero(as_tuple=True)
    expected = [
        [10 * n + int(assignment.box_index[n, a]), n] for n, a in zip(pictures.tolist(), points.tolist(), strict=True)
    ]
    assert assignment.gather(names).tolist() == expected
