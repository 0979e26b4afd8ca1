import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from training.data.batches import BoxTargets
from training.detection.assigners import (
    Assignment,
    assign_by_centre,
    assign_task_aligned,
    make_size_ranges,
)
from training.detection.points import make_points

SIZE = 192
GRID = make_points(SIZE, (8, 16, 32), torch.device("cpu"))
POINTS, STRIDES = GRID
NO_BOXES = BoxTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))


def by_centre(boxes: list[list[float]] | Tensor, *, radius: float = 1.5) -> Assignment:
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return assign_by_centre(boxes, GRID, make_size_ranges(STRIDES, 8), radius=radius)


def points_of(assignment: Assignment, box: int) -> set[tuple[float, float, float]]:
    """Stride, x and y of a box's points."""
    mine = assignment.box_index == box
    return {(stride, x, y) for stride, (x, y) in zip(STRIDES[mine].tolist(), POINTS[mine].tolist(), strict=True)}


def random_boxes(count: int, *, size: int = SIZE) -> Tensor:
    """Boxes inside the input, 2 px to half the input a side, most of them small."""
    generator = torch.Generator().manual_seed(0)
    sides = 2 + torch.rand(count, 2, generator=generator) ** 2 * (size / 2 - 2)
    corners = torch.rand(count, 2, generator=generator) * (size - sides)
    return torch.cat([corners, corners + sides], dim=1)


@pytest.mark.parametrize(("reach", "fine", "middle"), [(8, 64, 128), (2.5, 20, 40)])
def test_each_level_has_distances_up_to_so_many_of_its_strides(reach: float, fine: float, middle: float) -> None:
    ranges = make_size_ranges(torch.tensor([16.0, 8.0, 32.0, 8.0]), reach)
    assert ranges.tolist() == [[fine, middle], [0, fine], [middle, torch.inf], [0, fine]]


def test_a_single_level_takes_every_size() -> None:
    assert make_size_ranges(torch.tensor([16.0, 16.0]), 8).tolist() == [[0, torch.inf]] * 2


def test_a_small_box_goes_to_the_points_around_its_centre_on_the_finest_level() -> None:
    # Centre (16, 16): the points at 12 and 20 are 4 px away; those at 4 and 28 12 px, 1.5 strides and no longer near.
    assignment = by_centre([[2, 2, 30, 30]])
    assert points_of(assignment, 0) == {(8, x, y) for x in (12, 20) for y in (12, 20)}
    assert torch.equal(assignment.quality, (assignment.box_index == 0).float())


def test_a_larger_radius_reaches_more_points() -> None:
    nearby = (4, 12, 20, 28)
    assert points_of(by_centre([[2, 2, 30, 30]], radius=1.6), 0) == {(8, x, y) for x in nearby for y in nearby}


def test_points_near_the_centre_but_outside_the_box_are_background() -> None:
    assert points_of(by_centre([[2, 10, 30, 18]]), 0) == {(8, 12, 12), (8, 20, 12)}


def test_larger_boxes_go_to_coarser_levels() -> None:
    # Centre (80, 80): of stride 16 the points at 72 and 88 reach 88 px; of stride 32 those at 48 and 112 only 112.
    assert points_of(by_centre([[0, 0, 160, 160]]), 0) == {(16, x, y) for x in (72, 88) for y in (72, 88)}
    # A box larger than the input: centre (96, 96), 160 px to each side; of stride 32 the points 80 and 112 are near.
    assert points_of(by_centre([[-64, -64, 256, 256]]), 0) == {(32, x, y) for x in (80, 112) for y in (80, 112)}


@pytest.mark.parametrize("flip", [False, True])
def test_of_two_boxes_around_a_point_the_smaller_has_it(*, flip: bool) -> None:
    boxes = [[2.0, 2.0, 30.0, 30.0], [8.0, 8.0, 16.0, 30.0]]
    assignment = by_centre(boxes[::-1] if flip else boxes)
    assert points_of(assignment, 0 if flip else 1) == {(8, 12, y) for y in (12, 20, 28)}
    assert points_of(assignment, 1 if flip else 0) == {(8, 20, y) for y in (12, 20)}


def test_a_box_between_the_points_gets_the_nearest_one() -> None:
    assert points_of(by_centre([[6, 6, 9, 9]]), 0) == {(8, 4, 4)}


def test_a_box_between_two_levels_gets_a_point_of_its_size() -> None:
    # Half its side is 63 px, for stride 8, whose points reach 66 px and more; those of stride 16 lie below it.
    assert points_of(by_centre([[0, 0, 126, 6]]), 0) == {(8, 60, 4)}
    # Half its side is 95 px: stride 16, although a point of stride 8 lies nearer, and inside.
    assert points_of(by_centre([[0, 0, 190, 6]]), 0) == {(16, 88, 8)}


def test_a_box_that_loses_its_points_to_smaller_ones_gets_the_nearest_free_one() -> None:
    small = [[x - 3.0, y - 3.0, x + 3.0, y + 3.0] for x in (12, 20) for y in (12, 20)]
    assignment = by_centre([[2.0, 2.0, 30.0, 30.0], *small])
    for index, (left, top, _, _) in enumerate(small, start=1):
        assert points_of(assignment, index) == {(8, left + 3, top + 3)}
    # All eight free points next to the four are at most this far from the centre.
    ((stride, x, y),) = points_of(assignment, 0)
    assert (stride, (x - 16) ** 2 + (y - 16) ** 2) == (8, 4**2 + 12**2)


def test_equal_boxes_share_the_points_between_them() -> None:
    assignment = by_centre([[6, 6, 9, 9]] * 5)
    found = [points_of(assignment, box) for box in range(5)]
    assert all(len(points) == 1 for points in found)
    assert len(set.union(*found)) == 5


def test_no_point_is_taken_from_another_box_when_a_level_is_full() -> None:
    points = make_points(16, (8,), torch.device("cpu"))
    boxes = torch.tensor([[6.0, 6.0, 9.0, 9.0]] * 6)
    assignment = assign_by_centre(boxes, points, make_size_ranges(points.strides, 8), radius=1.5)
    assert sorted(assignment.box_index.tolist()) == [0, 1, 2, 3]


def test_every_box_of_a_crowded_picture_gets_a_point() -> None:
    assert set(by_centre(random_boxes(60)).box_index.tolist()) == set(range(-1, 60))


def test_assigned_points_move_with_their_boxes() -> None:
    boxes = random_boxes(12, size=SIZE - 64)
    before, after = by_centre(boxes + 32), by_centre(boxes + torch.tensor([64.0, 32.0, 64.0, 32.0]))
    for box in range(12):
        assert points_of(after, box) == {(stride, x + 32, y) for stride, x, y in points_of(before, box)}


FOUR = make_points(32, (8,), torch.device("cpu"))  # 4 x 4 points at 4, 12, 20, 28


def align(
    boxes: list[list[float]],
    labels: list[int],
    predicted: dict[int, tuple[list[float], list[float]]],
    *,
    top_k: int = 9,
) -> Assignment:
    """With two classes; points that predict nothing say a box far away with score 0.5."""
    scores, predicted_boxes = torch.full((16, 2), 0.5), torch.tensor([[500.0, 500.0, 508.0, 508.0]]).repeat(16, 1)
    for point, (box, point_scores) in predicted.items():
        predicted_boxes[point], scores[point] = torch.tensor(box), torch.tensor(point_scores)
    wanted = BoxTargets(torch.tensor(boxes), torch.tensor(labels))
    return assign_task_aligned(wanted, scores, predicted_boxes, FOUR, top_k=top_k)


def test_a_box_takes_the_points_that_find_it_best() -> None:
    # The points 0, 1, 4, 5 lie inside. IoU with [0, 0, 16, h] is h / 16; the label is 1, the other score is no matter.
    predicted = {
        0: ([0.0, 0.0, 16.0, 16.0], [0.1, 0.5]),  # 0.5 * 1
        1: ([0.0, 0.0, 16.0, 8.0], [1.0, 0.8]),  # 0.8 * 0.5 ** 6 = 0.0125
        4: ([0.0, 0.0, 16.0, 12.0], [0.1, 1.0]),  # 0.75 ** 6 = 0.178
        5: ([0.0, 0.0, 16.0, 12.0], [0.1, 0.9]),  # 0.9 * 0.75 ** 6 = 0.160
        15: ([0.0, 0.0, 16.0, 16.0], [1.0, 1.0]),  # outside
    }
    assignment = align([[0.0, 0.0, 16.0, 16.0]], [1], predicted, top_k=3)
    assert (assignment.box_index >= 0).nonzero().flatten().tolist() == [0, 4, 5]
    wanted = [1.0, 0.75**6 / 0.5, 0.9 * 0.75**6 / 0.5]
    torch.testing.assert_close(assignment.quality[[0, 4, 5]], torch.tensor(wanted))
    assert assignment.quality.count_nonzero() == 3


def test_the_highest_quality_is_the_best_iou_even_where_the_score_decides() -> None:
    predicted = {0: ([0.0, 0.0, 16.0, 8.0], [1.0, 1.0]), 1: ([0.0, 0.0, 16.0, 10.0], [1e-3, 1e-3])}
    assignment = align([[0.0, 0.0, 16.0, 16.0]], [0], predicted)
    assert assignment.quality[0].item() == pytest.approx(10 / 16)
    assert assignment.quality[1].item() == pytest.approx(10 / 16 * 1e-3 * (10 / 8) ** 6)


@pytest.mark.parametrize("flip", [False, True])
def test_a_point_that_suits_two_boxes_goes_to_the_one_it_overlaps_more(*, flip: bool) -> None:
    boxes, labels = [[0.0, 0.0, 16.0, 16.0], [0.0, 0.0, 16.0, 14.0]], [0, 1]
    if flip:
        boxes, labels = boxes[::-1], labels[::-1]
    predicted = {0: ([0.0, 0.0, 16.0, 16.0], [0.1, 0.9]), 1: ([0.0, 0.0, 16.0, 13.0], [0.9, 0.1])}
    assignment = align(boxes, labels, predicted, top_k=2)
    assert assignment.box_index[[0, 1]].tolist() == ([1, 0] if flip else [0, 1])
    # Each box is measured by the points it keeps.
    torch.testing.assert_close(assignment.quality[[0, 1]], torch.tensor([1.0, 13 / 14]))


def test_a_box_without_a_point_inside_gets_the_nearest() -> None:
    assignment = align([[6.0, 6.0, 9.0, 9.0]], [0], {0: ([6.0, 6.0, 9.0, 7.5], [0.2, 0.2])})
    assert (assignment.box_index >= 0).nonzero().flatten().tolist() == [0]
    assert assignment.quality[0].item() == pytest.approx(0.5)


def test_a_nearer_point_outside_is_left_out_where_there_are_points_inside() -> None:
    # Centre (15.5, 8): the points (12, 4) and (12, 12) of stride 8 are nearer than (8, 8) of stride 16, but outside.
    boxes, labels = torch.tensor([[0.0, 7.0, 31.0, 9.0]]), torch.tensor([0])
    found = torch.ones(len(POINTS), 1), boxes.repeat(len(POINTS), 1)
    assignment = assign_task_aligned(BoxTargets(boxes, labels), *found, GRID, top_k=9)
    assert points_of(assignment, 0) == {(16, 8, 8), (16, 24, 8)}


def test_a_box_that_no_prediction_overlaps_takes_the_best_score_with_quality_0() -> None:
    far = [500.0, 500.0, 508.0, 508.0]
    assignment = align([[0.0, 0.0, 16.0, 16.0]], [1], {4: (far, [0.1, 0.6])}, top_k=1)
    assert (assignment.box_index >= 0).nonzero().flatten().tolist() == [4]
    assert not assignment.quality.any()


@pytest.mark.parametrize(("better", "worse"), [(0, 5), (5, 0)])
def test_predictions_that_hardly_overlap_are_still_ranked(better: int, worse: int) -> None:
    predicted = {
        better: ([4.0, 4.0, 4.002, 4.002], [1.0, 1.0]),
        worse: ([4.0, 4.0, 4.001, 4.001], [1.0, 1.0]),
    }
    assignment = align([[0.0, 0.0, 16.0, 16.0]], [0], predicted, top_k=1)
    assert (assignment.box_index >= 0).nonzero().flatten().tolist() == [better]


def test_a_crowded_picture_is_aligned_within_the_rules() -> None:
    boxes, labels = random_boxes(20), torch.arange(20) % 3
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(len(POINTS), 3, generator=generator)
    sides = torch.rand(len(POINTS), 4, generator=generator) * 4 * STRIDES[:, None]
    predicted = torch.cat([POINTS - sides[:, :2], POINTS + sides[:, 2:]], dim=1)
    assignment = assign_task_aligned(BoxTargets(boxes, labels), scores, predicted, GRID, top_k=9)
    iou = box_iou(predicted, boxes)
    assert (assignment.quality >= 0).all()
    assert not assignment.quality[assignment.box_index < 0].any()
    for box in range(20):
        mine = assignment.box_index == box
        if mine.any():
            inside = ((boxes[box, :2] < POINTS) & (boxes[box, 2:] > POINTS)).all(dim=1)
            assert inside[mine].all() or mine.sum() == 1
            assert mine.sum() <= 9
            best = iou[mine, box].max()
            torch.testing.assert_close(assignment.quality[mine].max(), best)
            suits = scores[mine, labels[box]] * iou[mine, box] ** 6
            torch.testing.assert_close(assignment.quality[mine], suits / suits.max() * best)


def test_alpha_and_beta_say_whether_score_or_overlap_decides() -> None:
    boxes, labels = torch.tensor([[0.0, 0.0, 16.0, 16.0]]), torch.tensor([0])
    scores = torch.zeros(16, 1)
    scores[0], scores[1] = 0.9, 0.5
    predicted = torch.tensor([[0.0, 0.0, 16.0, 8.0]]).repeat(16, 1)
    predicted[1] = boxes[0]
    for alpha, beta, best in [(1.0, 6.0, 1), (1.0, 0.0, 0), (0.0, 1.0, 1), (6.0, 1.0, 0)]:
        assignment = assign_task_aligned(
            BoxTargets(boxes, labels), scores, predicted, FOUR, top_k=1, alpha=alpha, beta=beta
        )
        assert (assignment.box_index >= 0).nonzero().flatten().tolist() == [best]


def test_a_picture_without_boxes_is_all_background() -> None:
    for assignment in (
        by_centre([]),
        assign_task_aligned(NO_BOXES, torch.rand(16, 2), torch.rand(16, 4), FOUR, top_k=9),
    ):
        assert (assignment.box_index == -1).all()
        assert not assignment.quality.any()
        assert assignment.box_index.dtype == torch.long


def test_the_callers_boxes_stay_as_they_are() -> None:
    boxes = random_boxes(5)
    by_centre(boxes)
    assert torch.equal(boxes, random_boxes(5))
