import math

import pytest
import torch
from torch import Tensor

from tests.training.fakes import SIZE, make_branches_config, make_config
from training.config import Config, DetectionLossConfig, load_config
from training.data.batches import BoxTargets
from training.data.taxonomy import ANY_CLASS
from training.detection.cells import assign_to_cells, cell_loss
from training.detection.losses import point_detection_loss
from training.detection.points import make_points
from training.detection.schemes import CellScheme, PointScheme, build_scheme
from training.options.model import PointDetectionConfig

STRIDES = (8, 16, 32)
POINTS = 8 * 8 + 4 * 4 + 2 * 2
TARGETS = (
    BoxTargets(torch.tensor([[4.0, 8.0, 40.0, 48.0], [40.0, 40.0, 60.0, 62.0]]), torch.tensor([1, 0])),
    BoxTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)),
)


def random_logits(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.manual_seed(0))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_a_cell_scores_its_confidence_times_its_class_probability_and_draws_its_box() -> None:
    logits = random_logits(2, 5 + 3, 2, 2)
    boxes, scores = CellScheme(DetectionLossConfig()).decode(logits, input_size=SIZE)
    for picture in range(2):
        for cell, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
            x, y, w, h, confidence, *classes = logits[picture, :, row, column].tolist()
            total = sum(math.exp(value) for value in classes)
            by_hand = [sigmoid(confidence) * math.exp(value) / total for value in classes]
            assert scores[picture, cell].tolist() == pytest.approx(by_hand, rel=1e-5)
            centre, half = ((sigmoid(x) + column) * 32, (sigmoid(y) + row) * 32), (math.exp(w) * 16, math.exp(h) * 16)
            box = [centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1]]
            assert boxes[picture, cell].tolist() == pytest.approx([min(max(side, 0), 64) for side in box], rel=1e-5)


@pytest.mark.parametrize("epoch", [0, 10])
def test_the_loss_of_cells_is_that_of_the_targets_on_their_grid(epoch: int) -> None:
    logits, config = random_logits(2, 5 + 3, 4, 4), DetectionLossConfig()
    found = CellScheme(config).loss(logits, TARGETS, input_size=128, epoch=epoch, epochs=20)
    assigned = [assign_to_cells(target.boxes, target.labels, grid_size=4, stride=32) for target in TARGETS]
    assert found == cell_loss(logits, assigned, config, epoch=epoch)


@pytest.mark.parametrize("reg_max", [0, 7])
def test_points_are_decoded_to_a_box_inside_the_input_and_a_score_a_class(reg_max: int) -> None:
    logits = 3 * random_logits(2, POINTS, 4 * (reg_max + 1) + 5)
    boxes, scores = PointScheme(STRIDES, reg_max, PointDetectionConfig()).decode(logits, input_size=SIZE)
    assert (boxes.shape, scores.shape) == ((2, POINTS, 4), (2, POINTS, 5))
    assert ((boxes >= 0) & (boxes <= SIZE)).all()
    assert torch.equal(scores, logits[..., -5:].sigmoid())
    points, _ = make_points(SIZE, STRIDES, torch.device("cpu"))
    assert ((boxes[..., :2] <= points) & (boxes[..., 2:] >= points)).all()


def test_a_point_by_hand() -> None:
    logits = torch.full((1, POINTS, 4 + 2), -100.0)
    # The third point of stride 16 lies at (40, 8): 1 stride to the left, none up, 0.5 to the right, 2 down.
    logits[0, 66, :4] = torch.tensor([math.log(math.exp(d) - 1) if d else -100.0 for d in (1, 0, 0.5, 2)])
    logits[0, 66, 5] = math.log(3)
    boxes, scores = PointScheme(STRIDES, 0, PointDetectionConfig()).decode(logits, input_size=SIZE)
    assert boxes[0, 66].tolist() == pytest.approx([24, 8, 48, 40])
    assert scores[0, 66].tolist() == pytest.approx([0, 0.75])


@pytest.mark.parametrize(("epoch", "progress"), [(0, 0.0), (5, 0.5)])
def test_the_loss_of_points_is_told_how_far_the_stage_has_come(epoch: int, progress: float) -> None:
    logits, config = random_logits(2, POINTS, 4 + 3), PointDetectionConfig(assigner="task_aligned")
    found = PointScheme(STRIDES, 0, config).loss(logits, TARGETS, input_size=SIZE, epoch=epoch, epochs=10)
    expected, _ = point_detection_loss(
        logits[..., 4:], logits[..., :4], TARGETS, config, input_size=SIZE, strides=STRIDES, progress=progress
    )
    assert found == expected


@pytest.mark.parametrize(("config", "strides"), [(make_config(), (32,)), (make_branches_config(), STRIDES)])
def test_the_head_decides_the_scheme_and_its_grids(config: Config, strides: tuple[int, ...]) -> None:
    assert build_scheme(config).strides == strides


@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.parametrize(
    ("scheme", "logits"),
    [
        (CellScheme(DetectionLossConfig()), random_logits(2, 5 + 3, 2, 2)),
        (PointScheme(STRIDES, 0, PointDetectionConfig()), random_logits(2, POINTS, 4 + 3)),
        (PointScheme(STRIDES, 7, PointDetectionConfig()), random_logits(2, POINTS, 32 + 3)),
    ],
    ids=["cells", "points", "distributions"],
)
def test_with_a_limit_the_points_whose_best_score_is_highest_are_decoded_and_no_others(
    scheme: CellScheme | PointScheme, logits: Tensor, limit: int
) -> None:
    boxes, scores = scheme.decode(logits, input_size=SIZE)
    best_boxes, best_scores = scheme.decode(logits, input_size=SIZE, limit=limit)
    assert (best_boxes.shape, best_scores.shape) == ((2, limit, 4), (2, limit, 3))
    for picture in range(2):
        best = scores[picture].amax(dim=-1).argsort(descending=True)[:limit]
        torch.testing.assert_close(best_boxes[picture], boxes[picture, best])
        torch.testing.assert_close(best_scores[picture], scores[picture, best])


@pytest.mark.parametrize("limit", [POINTS, 1000])
def test_where_there_are_no_more_points_than_the_limit_all_stay_in_their_order(limit: int) -> None:
    scheme, logits = PointScheme(STRIDES, 0, PointDetectionConfig()), random_logits(2, POINTS, 4 + 3)
    for limited, unlimited in zip(
        scheme.decode(logits, input_size=SIZE, limit=limit), scheme.decode(logits, input_size=SIZE), strict=True
    ):
        assert torch.equal(limited, unlimited)


@pytest.mark.parametrize(
    ("scheme", "logits"),
    [
        (CellScheme(DetectionLossConfig()), random_logits(2, 5 + 3, 2, 2)),
        (PointScheme(STRIDES, 7, PointDetectionConfig()), random_logits(2, POINTS, 32 + 3)),
    ],
    ids=["cells", "points"],
)
def test_a_class_that_is_hidden_scores_nothing_and_the_others_are_as_if_it_were_not_there(
    scheme: CellScheme | PointScheme, logits: Tensor
) -> None:
    boxes, _ = scheme.decode(logits, input_size=SIZE)
    hidden = scheme.hide(logits, torch.tensor([False, True, False]))
    boxes_then, scores = scheme.decode(hidden, input_size=SIZE)
    assert torch.equal(boxes_then, boxes)
    assert (scores[..., 1] < 1e-12).all()
    rows = [0, 1, 2, 3, 4, 5, 7] if isinstance(scheme, CellScheme) else [*range(33), 34]
    without = logits[:, rows] if isinstance(scheme, CellScheme) else logits[..., rows]
    _, expected = scheme.decode(without, input_size=SIZE)
    assert torch.allclose(scores[..., [0, 2]], expected, rtol=1e-5)


def ignoring(box: list[float], label: int) -> tuple[BoxTargets, ...]:
    """The targets, with a region that the second picture is unsure about."""
    region, labels = torch.tensor([box]), torch.tensor([label])
    return TARGETS[0], TARGETS[1]._replace(ignored=region, ignored_labels=labels)


@pytest.mark.parametrize("label", [ANY_CLASS, 0, 2])
def test_cells_in_a_region_whose_class_is_unsure_are_no_background(label: int) -> None:
    logits, config = random_logits(2, 5 + 3, 4, 4).requires_grad_(), DetectionLossConfig()
    # Two cells wide, and one that is small and whose cell has its centre elsewhere.
    for box, cells in (([30.0, 34.0, 90.0, 60.0], [[1, 1], [1, 2]]), ([66.0, 98.0, 72.0, 104.0], [[3, 2]])):
        parts = CellScheme(config).loss(logits, ignoring(box, label), input_size=128, epoch=0, epochs=20)
        (gradient,) = torch.autograd.grad(parts["confidence"], logits)
        assert (gradient[1, 4] == 0).nonzero().tolist() == cells
        assert gradient[0, 4].all()


def test_the_report_s_cells_know_no_regions() -> None:
    logits, config = random_logits(2, 5 + 3, 4, 4), load_config("seed").detection_loss
    given = ignoring([30.0, 34.0, 90.0, 60.0], 0)
    found, expected = (
        CellScheme(config).loss(logits, targets, input_size=128, epoch=0, epochs=20) for targets in (given, TARGETS)
    )
    assert found == expected
    assert CellScheme(DetectionLossConfig()).loss(logits, given, input_size=128, epoch=0, epochs=20) != expected
