import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou, sigmoid_focal_loss

from training.data.batches import BoxTargets
from training.detection.assigners import Assignment
from training.detection.losses import (
    _compute_paired_iou,
    distribution_focal_loss,
    point_detection_loss,
    quality_focal_loss,
)
from training.detection.points import decode_distances, encode_distances, make_points
from training.models.branches import prior_bias
from training.options.model import PointDetectionConfig

SIZE, LEVELS, NUM_CLASSES = 64, (8, 16, 32), 3
POINTS, STRIDES = make_points(SIZE, LEVELS, torch.device("cpu"))
TARGETS = [
    BoxTargets(torch.tensor([[4.0, 6.0, 30.0, 34.0], [36.0, 30.0, 60.0, 62.0]]), torch.tensor([2, 0])),
    BoxTargets(torch.tensor([[10.0, 10.0, 50.0, 40.0]]), torch.tensor([1])),
]
NO_BOXES = BoxTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
CONFIGS = [
    PointDetectionConfig.model_validate({"assigner": assigner, "score_loss": score_loss})
    for assigner, score_loss in itertools.product(("centre", "task_aligned"), ("focal", "quality_focal"))
]


def random_raw(count: int = 2, *, reg_max: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(count, len(POINTS), NUM_CLASSES, generator=generator)
    return scores, torch.randn(count, len(POINTS), 4 * (reg_max + 1), generator=generator)


def compute(
    raw: tuple[Tensor, Tensor],
    targets: list[BoxTargets],
    config: PointDetectionConfig,
    *,
    progress: float = 1.0,
) -> tuple[dict[str, Tensor], Assignment]:
    return point_detection_loss(*raw, targets, config, input_size=SIZE, strides=LEVELS, progress=progress)


def values(parts: dict[str, Tensor]) -> dict[str, float]:
    return {name: part.item() for name, part in parts.items()}


def test_quality_focal_loss_of_hard_targets_is_focal_loss() -> None:
    logits = torch.randn(20, generator=torch.manual_seed(0))
    targets = (torch.arange(20) % 3 == 0).float()
    focal = sigmoid_focal_loss(logits, targets, alpha=-1, gamma=2)
    torch.testing.assert_close(quality_focal_loss(logits, targets), focal)


def test_quality_focal_loss_of_a_soft_target_by_hand() -> None:
    logits, targets = torch.tensor([0.0, math.log(4)]), torch.tensor([0.8, 0.3])
    # The scores are 0.5 and 0.8.
    entropies = [math.log(2), -(0.3 * math.log(0.8) + 0.7 * math.log(0.2))]
    expected = torch.tensor([0.3**2 * entropies[0], 0.5**2 * entropies[1]])
    torch.testing.assert_close(quality_focal_loss(logits, targets), expected)
    torch.testing.assert_close(quality_focal_loss(logits, targets, beta=1), expected / torch.tensor([0.3, 0.5]))


def test_quality_focal_loss_rests_where_the_score_is_its_target() -> None:
    targets = torch.tensor([0.1, 0.5, 0.9])
    logits = targets.logit().requires_grad_()
    (gradient,) = torch.autograd.grad(quality_focal_loss(logits, targets).sum(), logits)
    torch.testing.assert_close(gradient, torch.zeros(3), atol=1e-6, rtol=0)


def test_distribution_focal_loss_is_cross_entropy_with_the_two_nearest_bins() -> None:
    logits = torch.randn(5, 4, generator=torch.manual_seed(0))
    distances = torch.tensor([0.0, 0.25, 1.0, 2.9, 3.0])
    shares = torch.tensor([[1, 0, 0, 0], [0.75, 0.25, 0, 0], [0, 1, 0, 0], [0, 0, 0.1, 0.9], [0, 0, 0, 1]])
    expected = F.cross_entropy(logits, shares, reduction="none")
    torch.testing.assert_close(distribution_focal_loss(logits, distances), expected)


def test_distances_that_the_bins_cannot_say_count_as_the_nearest_that_they_can() -> None:
    logits = torch.randn(2, 4, generator=torch.manual_seed(0))
    beyond = distribution_focal_loss(logits, torch.tensor([-2.0, 7.5]))
    assert torch.equal(beyond, distribution_focal_loss(logits, torch.tensor([0.0, 3.0])))


def test_paired_iou_is_the_diagonal_of_all_ious() -> None:
    corners = torch.rand(2, 12, 2, generator=torch.manual_seed(0)) * 20
    boxes, others = torch.cat([corners, corners + 8], dim=2)
    torch.testing.assert_close(_compute_paired_iou(boxes, others), box_iou(boxes, others).diagonal())
    assert (box_iou(boxes, others).diagonal() == 0).any()


def by_hand(
    raw: tuple[Tensor, Tensor], assignment: Assignment, config: PointDetectionConfig, reg_max: int
) -> dict[str, float]:
    """The formulas point by point, given which point has which box."""
    scores, raw_boxes = raw
    boxes = decode_distances(raw_boxes, POINTS, STRIDES, reg_max)
    score_targets = torch.zeros_like(scores)
    box = distribution = total = 0.0
    for n, target in enumerate(TARGETS):
        for a in (assignment.box_index[n] >= 0).nonzero().flatten().tolist():
            index = int(assignment.box_index[n, a])
            quality = assignment.quality[n, a].item()
            pair = boxes[n, a][None], target.boxes[index][None]
            if config.score_loss == "focal":
                wanted = 1.0
            else:
                wanted = quality if config.assigner == "task_aligned" else box_iou(*pair).item()
            score_targets[n, a, target.labels[index]] = wanted
            box += quality * (1 - generalized_box_iou(*pair).item())
            total += quality
            if reg_max:
                distances = encode_distances(pair[1], POINTS[a], STRIDES[a]).flatten()
                per_side = distribution_focal_loss(raw_boxes[n, a].view(4, reg_max + 1), distances)
                distribution += quality * per_side.sum().item() / 4
    entropy = F.binary_cross_entropy_with_logits(scores, score_targets, reduction="none")
    factor = (score_targets - scores.sigmoid()).abs() ** 2
    if config.score_loss == "focal":
        factor = factor * torch.where(score_targets == 1, 0.25, 0.75)
    total = max(total, 1)
    parts = {"score": (factor * entropy).sum().item() / total, "box": 2 * box / total}
    return parts | ({"distribution": 0.25 * distribution / total} if reg_max else {})


@pytest.mark.parametrize("reg_max", [0, 4])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.assigner}-{config.score_loss}")
def test_the_parts_are_the_formulas_point_by_point(config: PointDetectionConfig, reg_max: int) -> None:
    raw = random_raw(reg_max=reg_max)
    parts, assignment = compute(raw, TARGETS, config)
    assert torch.unique(assignment.box_index).tolist() == [-1, 0, 1]
    assert values(parts) == pytest.approx(by_hand(raw, assignment, config, reg_max), rel=1e-4)


def test_the_sum_is_divided_once_by_the_points_of_the_whole_batch() -> None:
    raw = random_raw(reg_max=4)
    together, assignment = compute(raw, TARGETS, CONFIGS[0])
    counts = (assignment.box_index >= 0).sum(dim=1).tolist()
    assert counts[0] != counts[1]
    alone = [values(compute((raw[0][n : n + 1], raw[1][n : n + 1]), TARGETS[n : n + 1], CONFIGS[0])[0]) for n in (0, 1)]
    for name, value in values(together).items():
        weighted = sum(count * parts[name] for count, parts in zip(counts, alone, strict=True))
        assert value == pytest.approx(weighted / sum(counts), rel=1e-4)


def test_weights_multiply_their_part_alone() -> None:
    raw = random_raw(reg_max=4)
    ones = PointDetectionConfig(score_weight=1, box_weight=1, distribution_weight=1)
    plain = values(compute(raw, TARGETS, ones)[0])
    weighted = compute(raw, TARGETS, PointDetectionConfig(score_weight=2, box_weight=3, distribution_weight=5))[0]
    expected = {"score": 2 * plain["score"], "box": 3 * plain["box"], "distribution": 5 * plain["distribution"]}
    assert values(weighted) == pytest.approx(expected)


def test_the_warm_up_of_task_alignment_is_the_centre_loss() -> None:
    raw = random_raw()
    for centre, aligned in zip(CONFIGS[:2], CONFIGS[2:], strict=True):
        expected = values(compute(raw, TARGETS, centre)[0])
        assert values(compute(raw, TARGETS, aligned, progress=0.05)[0]) == expected
        assert values(compute(raw, TARGETS, aligned, progress=0.5)[0]) != expected


@pytest.mark.parametrize("reg_max", [0, 4])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.assigner}-{config.score_loss}")
def test_a_batch_without_boxes_teaches_low_scores_and_nothing_else(config: PointDetectionConfig, reg_max: int) -> None:
    scores, boxes = (part.requires_grad_() for part in random_raw(reg_max=reg_max))
    parts, _ = compute((scores, boxes), [NO_BOXES, NO_BOXES], config)
    assert all(part.item() == 0 for name, part in parts.items() if name != "score")
    gradients = torch.autograd.grad(torch.stack(list(parts.values())).sum(), (scores, boxes))
    assert torch.isfinite(parts["score"])
    assert torch.isfinite(gradients[0]).all()
    assert (gradients[0] > 0).all()
    assert torch.equal(gradients[1], torch.zeros_like(boxes))


@pytest.mark.parametrize("reg_max", [0, 4])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.assigner}-{config.score_loss}")
def test_gradients_are_finite_whatever_the_head_says(config: PointDetectionConfig, reg_max: int) -> None:
    scores, boxes = ((100 * part).requires_grad_() for part in random_raw(reg_max=reg_max))
    parts, _ = compute((scores, boxes), TARGETS, config)
    for gradient in torch.autograd.grad(torch.stack(list(parts.values())).sum(), (scores, boxes)):
        assert torch.isfinite(gradient).all()
        assert gradient.any()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.assigner}-{config.score_loss}")
def test_scores_teach_the_boxes_nothing_and_boxes_the_scores_nothing(config: PointDetectionConfig) -> None:
    scores, boxes = (part.requires_grad_() for part in random_raw())
    parts, _ = compute((scores, boxes), TARGETS, config)
    of_score = torch.autograd.grad(parts["score"], (scores, boxes), materialize_grads=True, retain_graph=True)
    of_box = torch.autograd.grad(parts["box"], (scores, boxes), materialize_grads=True)
    assert [bool(gradient.any()) for gradient in (*of_score, *of_box)] == [True, False, False, True]


def test_background_points_learn_no_boxes() -> None:
    scores, boxes = random_raw()
    parts, assignment = compute((scores, boxes.requires_grad_()), TARGETS, CONFIGS[0])
    (gradient,) = torch.autograd.grad(parts["box"], boxes)
    assert torch.equal(gradient.any(dim=-1), assignment.box_index >= 0)


@pytest.mark.parametrize("config", CONFIGS[:2], ids=lambda config: config.score_loss)
def test_a_perfect_answer_has_no_loss(config: PointDetectionConfig) -> None:
    _, assignment = compute(random_raw(), TARGETS, CONFIGS[0])
    scores, boxes = torch.full((2, len(POINTS), NUM_CLASSES), -40.0), torch.full((2, len(POINTS), 4), -5.0)
    for n, target in enumerate(TARGETS):
        for a in (assignment.box_index[n] >= 0).nonzero().flatten().tolist():
            index = int(assignment.box_index[n, a])
            scores[n, a, target.labels[index]] = 40
            boxes[n, a] = encode_distances(target.boxes[index], POINTS[a], STRIDES[a]).expm1().log()
    assert values(compute((scores, boxes), TARGETS, config)[0]) == pytest.approx({"score": 0, "box": 0}, abs=1e-5)


def test_losses_of_half_precision_are_computed_in_full() -> None:
    scores, boxes = (part.bfloat16() for part in random_raw(reg_max=4))
    parts, _ = compute((scores, boxes), TARGETS, CONFIGS[3])
    assert {part.dtype for part in parts.values()} == {torch.float32}
    assert values(parts) == values(compute((scores.float(), boxes.float()), TARGETS, CONFIGS[3])[0])


@pytest.mark.parametrize("reg_max", [0, 8])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.assigner}-{config.score_loss}")
def test_twenty_steps_on_free_logits_find_the_boxes_of_a_picture(config: PointDetectionConfig, reg_max: int) -> None:
    scores = torch.full((1, len(POINTS), NUM_CLASSES), prior_bias(0.01), requires_grad=True)
    boxes = torch.zeros(1, len(POINTS), 4 * (reg_max + 1), requires_grad=True)
    optimizer = torch.optim.Adam([scores, boxes])
    for step in range(20):
        optimizer.param_groups[0]["lr"] = 0.5 * (1 - step / 20)
        parts, _ = compute((scores, boxes), TARGETS[:1], config, progress=step / 20)
        optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]  # torch's, untyped
        optimizer.step()
    decoded = decode_distances(boxes.detach(), POINTS, STRIDES, reg_max)[0]
    for box, label in zip(TARGETS[0].boxes, TARGETS[0].labels, strict=True):
        best = scores.detach()[0, :, label].argmax()
        assert box_iou(decoded[best][None], box[None]).item() > 0.9
        assert scores[0, best].argmax() == label
