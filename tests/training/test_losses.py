import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.assigner import CellTargets, assign_to_cells
from training.config import DetectionLossConfig
from training.data.classes import VOID
from training.losses import classification_loss, detection_loss, segmentation_loss

CONFIG = DetectionLossConfig()


def random_logits(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.manual_seed(0))


def targets_of(*boxes_per_picture: list[list[float]]) -> list[CellTargets]:
    """On a 2 x 2 grid of stride 32; the labels count up from 0."""
    return [
        assign_to_cells(torch.tensor(boxes).reshape(-1, 4), torch.arange(len(boxes)), grid_size=2, stride=32)
        for boxes in boxes_per_picture
    ]


TWO_PICTURES = targets_of([[2, 2, 20, 30], [40, 34, 60, 62]], [[36, 4, 60, 40]])


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def smooth_l1(distance: float) -> float:
    return 0.5 * distance**2 if abs(distance) < 1 else abs(distance) - 0.5


def detection_by_hand(logits: Tensor, targets: list[CellTargets], *, gamma: float) -> dict[str, float]:
    """The formulas cell by cell: BCE is focal loss with gamma 0."""
    confidence = box = label = 0.0
    count = 0
    for picture, target in zip(logits, targets, strict=True):
        for row in range(2):
            for column in range(2):
                raw = picture[:, row, column].tolist()
                probability = sigmoid(raw[4])
                if not target.confidence[row, column]:
                    confidence += probability**gamma * -math.log(1 - probability)
                    continue
                count += 1
                confidence += (1 - probability) ** gamma * -math.log(probability)
                guess = [sigmoid(raw[0]), sigmoid(raw[1]), raw[2], raw[3]]
                wanted = target.boxes[row, column].tolist()
                box += sum(smooth_l1(a - b) for a, b in zip(guess, wanted, strict=True))
                exponentials = [math.exp(value) for value in raw[5:]]
                label -= math.log(exponentials[int(target.labels[row, column])] / sum(exponentials))
    return {name: value / max(count, 1) for name, value in [("confidence", confidence), ("box", box), ("class", label)]}


def values(parts: dict[str, Tensor]) -> dict[str, float]:
    return {name: part.item() for name, part in parts.items()}


@pytest.mark.parametrize(("epoch", "gamma"), [(0, 0.0), (9, 0.0), (10, 1.0), (39, 1.0)])
def test_detection_is_bce_for_ten_epochs_then_focal_with_gamma_1(epoch: int, gamma: float) -> None:
    logits = random_logits(2, 5 + 3, 2, 2)
    found = values(detection_loss(logits, TWO_PICTURES, CONFIG, epoch=epoch))
    assert found == pytest.approx(detection_by_hand(logits, TWO_PICTURES, gamma=gamma), rel=1e-5)


def test_detection_is_divided_by_the_boxes_of_the_whole_batch() -> None:
    logits = random_logits(2, 5 + 3, 2, 2)
    together = values(detection_loss(logits, TWO_PICTURES, CONFIG, epoch=0))
    alone = [
        values(detection_loss(logits[i : i + 1], TWO_PICTURES[i : i + 1], CONFIG, epoch=0)) for i in range(2)
    ]  # 2 boxes and 1
    for name, value in together.items():
        assert value == pytest.approx((2 * alone[0][name] + alone[1][name]) / 3, rel=1e-5)


def test_detection_weights_multiply_their_part_alone() -> None:
    logits = random_logits(2, 5 + 3, 2, 2)
    plain = values(detection_loss(logits, TWO_PICTURES, CONFIG, epoch=0))
    config = DetectionLossConfig(confidence_weight=2, box_weight=3, class_weight=5)
    weighted = values(detection_loss(logits, TWO_PICTURES, config, epoch=0))
    assert weighted == pytest.approx(
        {"confidence": 2 * plain["confidence"], "box": 3 * plain["box"], "class": 5 * plain["class"]}
    )


@pytest.mark.parametrize("epoch", [0, 10])
def test_detection_of_a_batch_without_boxes_is_confidence_alone_and_finite(epoch: int) -> None:
    logits = random_logits(2, 5 + 3, 2, 2).requires_grad_()
    parts = detection_loss(logits, targets_of([], []), CONFIG, epoch=epoch)
    assert parts["confidence"] > 0
    assert (parts["box"].item(), parts["class"].item()) == (0, 0)
    (gradient,) = torch.autograd.grad(torch.stack(list(parts.values())).sum(), logits)
    assert torch.isfinite(gradient).all()
    assert gradient[:, 4].all()
    assert not gradient[:, [0, 1, 2, 3, 5, 6, 7]].any()


def test_detection_asks_empty_cells_for_nothing_but_confidence() -> None:
    logits = random_logits(2, 5 + 3, 2, 2)
    changed = logits.clone()
    changed[1, [0, 1, 2, 3, 5, 6, 7], 1, 0] += 9  # the second picture's only box is in its first row
    before, after = (values(detection_loss(x, TWO_PICTURES, CONFIG, epoch=0)) for x in (logits, changed))
    assert after == before


def test_a_perfect_answer_has_no_detection_loss() -> None:
    (target,) = targets_of([[2, 2, 20, 30]])
    logits = torch.zeros(1, 5 + 1, 2, 2)
    logits[0, 4] = -40
    logits[0, :2, 0, 0] = target.boxes[0, 0, :2].logit()
    logits[0, 2:4, 0, 0] = target.boxes[0, 0, 2:]
    logits[0, 4, 0, 0] = 40
    assert values(detection_loss(logits, [target], CONFIG, epoch=0)) == pytest.approx(
        {"confidence": 0, "box": 0, "class": 0}, abs=1e-6
    )


def test_segmentation_is_the_mean_over_the_labelled_cells_of_the_batch() -> None:
    logits = random_logits(2, 3, 2, 2)
    masks = torch.tensor([[[0, VOID], [VOID, VOID]], [[1, 2], [VOID, 0]]])
    log_probs = logits.log_softmax(dim=1)
    by_hand = -(log_probs[0, 0, 0, 0] + log_probs[1, 1, 0, 0] + log_probs[1, 2, 0, 1] + log_probs[1, 0, 1, 1]) / 4
    assert segmentation_loss(logits, masks)["segmentation"].item() == pytest.approx(by_hand.item())


def test_what_the_network_says_under_void_changes_nothing() -> None:
    logits, masks = random_logits(1, 3, 4, 4), torch.ones(1, 4, 4, dtype=torch.long)
    masks[0, 1:3, 1:3] = VOID
    changed = logits.clone()
    changed[..., 1:3, 1:3] += 100 * random_logits(3, 2, 2)
    assert torch.equal(
        segmentation_loss(changed, masks)["segmentation"], segmentation_loss(logits, masks)["segmentation"]
    )


def test_a_batch_of_nothing_but_void_has_loss_0_and_gradient_0() -> None:
    logits = random_logits(2, 3, 2, 2).requires_grad_()
    loss = segmentation_loss(logits, torch.full((2, 8, 8), VOID))["segmentation"]
    assert loss == 0
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_segmentation_logits_are_spread_over_the_mask_without_aligned_corners() -> None:
    # Two cells 0 and 1 become four with their centres at -1/4, 1/4, 3/4, 5/4 of a cell; beyond the edge it is flat.
    logits = torch.stack([torch.zeros(1, 2, 2), torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])], dim=1)
    spread = torch.tensor([0.0, 0.25, 0.75, 1.0])
    by_hand = torch.log(1 + spread.exp()) - spread  # -log softmax of the second class
    found = segmentation_loss(logits, torch.ones(1, 4, 4, dtype=torch.long))["segmentation"]
    assert found.item() == pytest.approx(by_hand.mean().item())


def test_classification_is_the_mean_of_minus_log_probability() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    loss = classification_loss(logits, torch.tensor([1, 0]))["classification"]
    assert loss.item() == pytest.approx((-math.log(3 / 4) - math.log(1 / 2)) / 2)


def test_losses_of_half_precision_logits_are_computed_in_full() -> None:
    half = random_logits(2, 5 + 3, 2, 2).bfloat16()
    masks = torch.zeros(2, 4, 4, dtype=torch.long)
    parts = [
        *detection_loss(half, TWO_PICTURES, CONFIG, epoch=10).values(),
        *segmentation_loss(half, masks).values(),
        *classification_loss(half.flatten(1), torch.tensor([0, 1])).values(),
    ]
    assert {part.dtype for part in parts} == {torch.float32}
    assert parts[-1].item() == pytest.approx(F.cross_entropy(half.flatten(1).float(), torch.tensor([0, 1])).item())
