"""What a loss makes of scores, of regions that are ignored and of classes that are unknown."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from training.data.batches import BoxTargets
from training.detection.assigners import Assignment, assign_batch
from training.detection.losses import (
    _compute_paired_iou,
    distribution_focal_loss,
    point_detection_loss,
    quality_focal_loss,
    soft_focal_loss,
)
from training.detection.points import decode_distances, encode_distances, make_points
from training.detection.regions import find_points_in
from training.options.model import PointDetectionConfig

SIZE, LEVELS, NUM_CLASSES, REG_MAX = 64, (8, 16, 32), 3, 4
POINTS = make_points(SIZE, LEVELS, torch.device("cpu"))
TARGETS = [
    BoxTargets(torch.tensor([[4.0, 6.0, 30.0, 34.0], [36.0, 30.0, 60.0, 62.0]]), torch.tensor([2, 0])),
    BoxTargets(torch.tensor([[10.0, 10.0, 50.0, 40.0]]), torch.tensor([1])),
]
SCORES = [torch.tensor([0.4, 1.0]), torch.tensor([0.7])]
SCORED = [target._replace(scores=scores) for target, scores in zip(TARGETS, SCORES, strict=True)]
CONFIGS = [
    PointDetectionConfig.model_validate({"assigner": assigner, "score_loss": score_loss})
    for assigner, score_loss in itertools.product(("centre", "task_aligned"), ("focal", "quality_focal"))
]
each_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.assigner}-{config.score_loss}")


def random_raw() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, len(POINTS.xy), NUM_CLASSES, generator=generator)
    return scores, torch.randn(2, len(POINTS.xy), 4 * (REG_MAX + 1), generator=generator)


def compute(
    targets: list[BoxTargets], config: PointDetectionConfig, raw: tuple[Tensor, Tensor] | None = None
) -> tuple[dict[str, Tensor], Assignment]:
    raw = raw or random_raw()
    return point_detection_loss(*raw, targets, config, input_size=SIZE, strides=LEVELS, progress=1.0)


def find_score_gradient(targets: list[BoxTargets], config: PointDetectionConfig) -> tuple[Tensor, Assignment]:
    scores, boxes = random_raw()
    parts, assignment = compute(targets, config, (scores.requires_grad_(), boxes))
    (gradient,) = torch.autograd.grad(parts["score"], scores)
    return gradient, assignment


def by_the_book(targets: list[BoxTargets], config: PointDetectionConfig, *, soft: bool = False) -> dict[str, Tensor]:
    """The loss where nothing is ignored or unknown, in torchvision's words; with scores if `soft`."""
    scores, raw_boxes = random_raw()
    boxes = decode_distances(raw_boxes, POINTS.xy, POINTS.strides, REG_MAX)
    assignment = assign_batch(scores, boxes, targets, POINTS, config, progress=1.0)
    picture, point = (assignment.box_index >= 0).nonzero(as_tuple=True)
    wanted = assignment.gather([target.boxes for target in targets])
    labels = assignment.gather([target.labels for target in targets])
    quality = assignment.quality[picture, point]
    sure = assignment.gather(SCORES) if soft else torch.ones_like(quality)
    total = (quality * sure).sum().clamp(min=1)
    score_targets = torch.zeros_like(scores)
    if config.score_loss == "focal":
        score_targets[picture, point, labels] = sure
        distance = (score_targets - scores.sigmoid()).abs() ** 2
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(scores, score_targets, reduction="none")
        score = ((0.25 * score_targets + 0.75 * (1 - score_targets)) * distance * entropy).sum()
        if not soft:
            score = sigmoid_focal_loss(scores, score_targets, reduction="sum")
    else:
        overlap = _compute_paired_iou(boxes[picture, point], wanted)
        score_targets[picture, point, labels] = sure * (quality if config.assigner == "task_aligned" else overlap)
        score = quality_focal_loss(scores, score_targets).sum()
    weights = quality * sure
    box = (weights * generalized_box_iou_loss(boxes[picture, point], wanted)).sum()
    sides = encode_distances(wanted, POINTS.xy[point], POINTS.strides[point])
    per_side = distribution_focal_loss(raw_boxes[picture, point].reshape(-1, 4, REG_MAX + 1), sides)
    distribution = (weights * per_side.mean(dim=1)).sum()
    return {"score": score / total, "box": 2 * box / total, "distribution": 0.25 * distribution / total}


@each_config
def test_labels_that_are_sure_have_to_the_bit_the_loss_that_they_always_had(config: PointDetectionConfig) -> None:
    expected = by_the_book(TARGETS, config)
    parts, _ = compute(TARGETS, config)
    assert parts == expected  # to the bit
    elsewhere = [target._replace(areas=torch.zeros(0, 4), ignored=torch.zeros(0, 4)) for target in TARGETS]
    assert compute(elsewhere, config)[0] == expected


@each_config
def test_a_score_is_what_its_points_are_to_say_and_weighs_its_box(config: PointDetectionConfig) -> None:
    parts, _ = compute(SCORED, config)
    expected = by_the_book(SCORED, config, soft=True)
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value)
        assert not torch.isclose(value, by_the_book(TARGETS, config)[name], rtol=1e-3)


@each_config
def test_scores_of_1_are_as_none(config: PointDetectionConfig) -> None:
    sure = [target._replace(scores=torch.ones(len(target.boxes))) for target in TARGETS]
    torch.testing.assert_close(compute(sure, config)[0], compute(TARGETS, config)[0])
    mixed = [SCORED[0], TARGETS[1]]
    filled = [SCORED[0], sure[1]]
    assert compute(mixed, config)[0] == compute(filled, config)[0]


@each_config
def test_without_soft_scores_every_box_is_sure(config: PointDetectionConfig) -> None:
    hard = config.model_copy(update={"soft_scores": False})
    assert compute(SCORED, hard)[0] == compute(TARGETS, config)[0]


def test_soft_focal_loss_of_hard_targets_is_focal_loss() -> None:
    logits = 4 * torch.randn(50, generator=torch.manual_seed(0))
    targets = (torch.arange(50) % 3 == 0).float()
    torch.testing.assert_close(soft_focal_loss(logits, targets), sigmoid_focal_loss(logits, targets))
    found = soft_focal_loss(logits, targets, alpha=0.4, gamma=1.5)
    torch.testing.assert_close(found, sigmoid_focal_loss(logits, targets, alpha=0.4, gamma=1.5))


def test_soft_focal_loss_of_a_soft_target_by_hand() -> None:
    # A score of 0.8 that is to be 0.3; the weight is 0.25 x 0.3 + 0.75 x 0.7.
    entropy = -(0.3 * math.log(0.8) + 0.7 * math.log(0.2))
    found = soft_focal_loss(torch.tensor(math.log(4)), torch.tensor(0.3))
    assert found.item() == pytest.approx(0.6 * 0.5**2 * entropy)


def test_soft_focal_loss_is_least_where_the_score_is_its_target_and_focal_loss_is_not() -> None:
    scores = torch.arange(1, 100) / 100
    for wanted in (0.2, 0.5, 0.9):
        targets = torch.full_like(scores, wanted)
        assert scores[soft_focal_loss(scores.logit(), targets).argmin()].item() == pytest.approx(wanted)
        if wanted != 0.5:
            assert scores[sigmoid_focal_loss(scores.logit(), targets).argmin()].item() != pytest.approx(wanted)


REGION = torch.tensor([[28.0, 26.0, 62.0, 64.0]])  # of the first picture; cuts into its second box's points


@each_config
def test_points_in_an_ignored_region_count_nothing_for_its_class_unless_they_have_a_box(
    config: PointDetectionConfig,
) -> None:
    plain, assignment = find_score_gradient(TARGETS, config)
    ignoring = [TARGETS[0]._replace(ignored=REGION, ignored_labels=torch.tensor([1])), TARGETS[1]]
    gradient, _ = find_score_gradient(ignoring, config)
    assigned = assignment.box_index[0] >= 0
    silent = torch.zeros_like(gradient, dtype=torch.bool)
    silent[0, :, 1] = find_points_in(REGION, POINTS)[0] & ~assigned
    assert silent.any()
    assert (find_points_in(REGION, POINTS)[0] & assigned).any()
    assert (gradient[silent] == 0).all()
    assert torch.equal(gradient[~silent], plain[~silent])
    assert plain[silent].all()


@each_config
def test_points_in_a_region_of_any_class_count_nothing_at_all(config: PointDetectionConfig) -> None:
    _, assignment = find_score_gradient(TARGETS, config)
    ignoring = [TARGETS[0]._replace(ignored=REGION, ignored_labels=torch.tensor([-1])), TARGETS[1]]
    gradient, _ = find_score_gradient(ignoring, config)
    silent = find_points_in(REGION, POINTS)[0] & (assignment.box_index[0] < 0)
    assert not gradient[0, silent].any()
    assert gradient[0, ~silent].all()
    assert gradient[1].all()


@each_config
def test_what_is_ignored_changes_neither_the_boxes_nor_what_the_sum_is_divided_by(
    config: PointDetectionConfig,
) -> None:
    ignoring = [TARGETS[0]._replace(ignored=REGION, ignored_labels=torch.tensor([-1])), TARGETS[1]]
    parts, plain = compute(ignoring, config)[0], compute(TARGETS, config)[0]
    assert parts["score"] < plain["score"]
    assert (parts["box"], parts["distribution"]) == (plain["box"], plain["distribution"])


@each_config
def test_unknown_classes_count_nothing_in_their_picture_but_where_a_box_of_them_is(
    config: PointDetectionConfig,
) -> None:
    plain, assignment = find_score_gradient(TARGETS, config)
    # The first picture knows class 2 alone, and has a box of class 0 all the same.
    unknown = torch.tensor([[True, True, False]])
    knowing = [TARGETS[0]._replace(areas=torch.tensor([[0.0, 0.0, 64.0, 64.0]]), unknown=unknown), TARGETS[1]]
    gradient, _ = find_score_gradient(knowing, config)
    counted = torch.ones_like(gradient, dtype=torch.bool)
    counted[0, :, 0] = assignment.box_index[0] == 1
    counted[0, :, 1] = False
    assert counted[0, :, 0].any()
    assert not gradient[~counted].any()
    assert torch.equal(gradient[counted], plain[counted])


@each_config
def test_ignored_and_unknown_go_together_whatever_the_head_says(config: PointDetectionConfig) -> None:
    scores, boxes = (100 * part for part in random_raw())
    whole = torch.tensor([[0.0, 0.0, 64.0, 64.0]])
    both = [
        SCORED[0]._replace(ignored=REGION, ignored_labels=torch.tensor([2])),
        SCORED[1]._replace(areas=whole, unknown=torch.tensor([[True, False, False]])),
    ]
    parts, _ = compute(both, config, (scores.requires_grad_(), boxes.requires_grad_()))
    for gradient in torch.autograd.grad(torch.stack(list(parts.values())).sum(), (scores, boxes)):
        assert torch.isfinite(gradient).all()
        assert gradient.any()
