import pytest
import torch
from torch import Tensor

from training.data.batches import BoxTargets
from training.data.taxonomy import ANY_CLASS
from training.detection.points import make_points
from training.detection.regions import find_ignored, find_points_in, find_unknown

SIZE, LEVELS, NUM_CLASSES = 64, (8, 16, 32), 3
POINTS = make_points(SIZE, LEVELS, torch.device("cpu"))
NO_BOXES = BoxTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))


def mark(*regions: tuple[float, float, float, float]) -> Tensor:
    return find_points_in(torch.tensor(regions, dtype=torch.float32), POINTS)


def with_ignored(*regions: tuple[tuple[float, float, float, float], int]) -> BoxTargets:
    boxes, labels = torch.tensor([box for box, _ in regions]), torch.tensor([label for _, label in regions])
    return NO_BOXES._replace(ignored=boxes, ignored_labels=labels)


def test_points_inside_a_region_are_in_it() -> None:
    (inside,) = mark((10, 3, 41, 30))
    x, y = POINTS.xy.T
    assert torch.equal(inside, (x > 10) & (x < 41) & (y > 3) & (y < 30))
    assert {8, 16} <= set(POINTS.strides[inside].tolist())


def test_a_region_smaller_than_a_cell_has_the_point_whose_cell_holds_its_centre() -> None:
    (inside,) = mark((24.5, 41, 27, 42.5))  # no point of any level lies in it
    found = sorted(zip(POINTS.strides[inside].tolist(), POINTS.xy[inside].tolist(), strict=True))
    assert found == [(8, [28, 44]), (16, [24, 40]), (32, [16, 48])]


def test_a_thin_region_has_the_points_along_it() -> None:
    (inside,) = mark((1, 20.5, 63, 21))
    assert POINTS.xy[inside & (POINTS.strides == 8)].tolist() == [[8 * i + 4, 20] for i in range(8)]


def test_regions_move_with_their_points() -> None:
    """Three cells of the finest level, so that coarser ones need not agree."""
    boxes = torch.rand(30, 2, generator=torch.manual_seed(0)) * 30
    regions = torch.cat([boxes, boxes + torch.rand(30, 2, generator=torch.manual_seed(1)) * 10], dim=1)
    fine = make_points(SIZE, (8,), torch.device("cpu"))
    before, after = (find_points_in(regions + shift, fine).view(-1, 8, 8) for shift in (0, 24))
    assert torch.equal(before[:, :5, :5], after[:, 3:, 3:])
    assert before[:, :5, :5].any(dim=(1, 2)).sum() > 20


def test_mirrored_regions_have_the_mirrored_points() -> None:
    corners = torch.rand(30, 2, generator=torch.manual_seed(0)) * 50
    x1, y1, x2, y2 = torch.cat([corners, corners + 9.7], dim=1).T
    fine = make_points(SIZE, (8,), torch.device("cpu"))
    before, after = (
        find_points_in(torch.stack(sides, dim=1), fine).view(-1, 8, 8)
        for sides in ((x1, y1, x2, y2), (SIZE - x2, y1, SIZE - x1, y2))
    )
    assert torch.equal(before.flip(2), after)


def test_a_region_is_ignored_for_its_own_class_in_its_own_picture() -> None:
    targets = [NO_BOXES, with_ignored(((8, 8, 40, 40), 2), ((30, 30, 60, 60), 0))]
    ignored = find_ignored(targets, POINTS, NUM_CLASSES)
    assert ignored is not None
    assert not ignored[0].any()
    expected = mark((30, 30, 60, 60), (8, 8, 40, 40))
    assert torch.equal(ignored[1, :, [0, 2]].T, expected)
    assert not ignored[1, :, 1].any()


def test_a_region_of_any_class_is_ignored_for_all() -> None:
    ignored = find_ignored([with_ignored(((8, 8, 40, 40), ANY_CLASS), ((30, 30, 60, 60), 0))], POINTS, NUM_CLASSES)
    assert ignored is not None
    one, other = mark((8, 8, 40, 40), (30, 30, 60, 60))
    assert torch.equal(ignored[0], torch.stack([one | other, one, one], dim=1))


def test_nothing_is_ignored_where_there_is_no_region() -> None:
    assert find_ignored([NO_BOXES, NO_BOXES], POINTS, NUM_CLASSES) is None


def test_a_class_is_unknown_in_its_area_alone() -> None:
    rows = torch.tensor([[True, False, True], [False, True, False]])
    areas = torch.tensor([[0.0, 0.0, 32.0, 64.0], [32.0, 0.0, 64.0, 64.0]])
    unknown = find_unknown([NO_BOXES, NO_BOXES._replace(areas=areas, unknown=rows)], POINTS)
    assert unknown is not None
    assert not unknown[0].any()
    left = POINTS.xy[:, 0] < 32
    assert torch.equal(unknown[1], torch.where(left[:, None], rows[0], rows[1]))


@pytest.mark.parametrize("border", [28.0, 32.0])  # on points of stride 8, and between them
def test_a_point_on_a_border_lies_in_one_area(border: float) -> None:
    areas = torch.tensor([[0.0, 0.0, border, 64.0], [border, 0.0, 64.0, 64.0]])
    target = NO_BOXES._replace(areas=areas, unknown=torch.tensor([[True, False], [False, True]]))
    unknown = find_unknown([target], POINTS)
    assert unknown is not None
    assert (unknown.sum(dim=2) == 1).all()


def test_nothing_is_unknown_where_all_was_looked_for() -> None:
    assert find_unknown([NO_BOXES], POINTS) is None
