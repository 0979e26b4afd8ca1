import math

import pytest
import torch
from torch import Tensor

from training.config import DetectionLossConfig
from training.detection.cells import CellTargets, assign_to_cells, cell_loss, decode_cell_boxes, encode_cell_boxes

STRIDE = 32
CONFIG = DetectionLossConfig()


def random_boxes(count: int, *, size: int) -> Tensor:
    """Boxes inside the input, 2 px to half the input a side."""
    generator = torch.Generator().manual_seed(0)
    sides = 2 + torch.rand(count, 2, generator=generator) * (size / 2 - 2)
    corners = torch.rand(count, 2, generator=generator) * (size - sides)
    return torch.cat([corners, corners + sides], dim=1)


def as_raw(encoded: Tensor) -> Tensor:
    """What the head must say to mean this: offsets before the sigmoid."""
    return torch.cat([encoded[:, :2].logit(), encoded[:, 2:]], dim=1)


def test_a_hand_worked_box() -> None:
    # Centre (56, 104): column 1 and 24 px into it, row 3 and 8 px into it; one stride wide, two high.
    cells, encoded = encode_cell_boxes(torch.tensor([[40.0, 72.0, 72.0, 136.0]]), STRIDE)
    assert cells.tolist() == [[3, 1]]
    torch.testing.assert_close(encoded, torch.tensor([[0.75, 0.25, math.log(1), math.log(2)]]))


def test_decode_inverts_encode() -> None:
    boxes = random_boxes(50, size=256)
    cells, encoded = encode_cell_boxes(boxes, STRIDE)
    for box, (row, column), values in zip(boxes, cells.tolist(), as_raw(encoded), strict=True):
        raw = torch.zeros(1, 4, 8, 8)
        raw[0, :, row, column] = values
        torch.testing.assert_close(decode_cell_boxes(raw, STRIDE)[0, row * 8 + column], box, atol=1e-3, rtol=1e-5)


def test_a_head_that_says_nothing_draws_each_cell_itself() -> None:
    expected = [[x, y, x + 32, y + 32] for y in (0, 32) for x in (0, 32, 64)]
    assert decode_cell_boxes(torch.zeros(1, 4, 2, 3), STRIDE)[0].tolist() == expected


def test_a_box_moves_with_its_cell() -> None:
    boxes = random_boxes(20, size=128)
    cells, encoded = encode_cell_boxes(boxes, STRIDE)
    moved_cells, moved = encode_cell_boxes(boxes + torch.tensor([64.0, 32.0, 64.0, 32.0]), STRIDE)
    assert torch.equal(moved_cells, cells + torch.tensor([1, 2]))
    torch.testing.assert_close(moved, encoded)


def test_decoded_boxes_are_clipped_to_the_input_whatever_the_head_says() -> None:
    raw = 1e4 * torch.randn(2, 4, 3, 5, generator=torch.manual_seed(0))
    boxes = decode_cell_boxes(raw, STRIDE)
    assert boxes.shape == (2, 15, 4)
    assert torch.isfinite(boxes).all()
    assert (boxes >= 0).all()
    assert (boxes[..., 0::2] <= 160).all()
    assert (boxes[..., 1::2] <= 96).all()
    assert (boxes[..., 2:] >= boxes[..., :2]).all()


def test_the_callers_boxes_stay_as_they_are() -> None:
    boxes, raw = random_boxes(3, size=64), torch.randn(1, 4, 2, 2, generator=torch.manual_seed(0))
    before = boxes.clone(), raw.clone()
    encode_cell_boxes(boxes, STRIDE)
    decode_cell_boxes(raw, STRIDE)
    assert torch.equal(boxes, before[0])
    assert torch.equal(raw, before[1])


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
    found = values(cell_loss(logits, TWO_PICTURES, CONFIG, epoch=epoch))
    assert found == pytest.approx(detection_by_hand(logits, TWO_PICTURES, gamma=gamma), rel=1e-5)


def test_detection_is_divided_by_the_boxes_of_the_whole_batch() -> None:
    logits = random_logits(2, 5 + 3, 2, 2)
    together = values(cell_loss(logits, TWO_PICTURES, CONFIG, epoch=0))
    alone = [
        values(cell_loss(logits[i : i + 1], TWO_PICTURES[i : i + 1], CONFIG, epoch=0)) for i in range(2)
    ]  # 2 boxes and 1
    for name, value in together.items():
        assert value == pytest.approx((2 * alone[0][name] + alone[1][name]) / 3, rel=1e-5)


def test_detection_weights_multiply_their_part_alone() -> None:
    logits = random_logits(2, 5 + 3, 2, 2)
    plain = values(cell_loss(logits, TWO_PICTURES, CONFIG, epoch=0))
    config = DetectionLossConfig(confidence_weight=2, box_weight=3, class_weight=5)
    weighted = values(cell_loss(logits, TWO_PICTURES, config, epoch=0))
    assert weighted == pytest.approx(
        {"confidence": 2 * plain["confidence"], "box": 3 * plain["box"], "class": 5 * plain["class"]}
    )


@pytest.mark.parametrize("epoch", [0, 10])
def test_detection_of_a_batch_without_boxes_is_confidence_alone_and_finite(epoch: int) -> None:
    logits = random_logits(2, 5 + 3, 2, 2).requires_grad_()
    parts = cell_loss(logits, targets_of([], []), CONFIG, epoch=epoch)
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
    before, after = (values(cell_loss(x, TWO_PICTURES, CONFIG, epoch=0)) for x in (logits, changed))
    assert after == before


def test_a_perfect_answer_has_no_cell_loss() -> None:
    (target,) = targets_of([[2, 2, 20, 30]])
    logits = torch.zeros(1, 5 + 1, 2, 2)
    logits[0, 4] = -40
    logits[0, :2, 0, 0] = target.boxes[0, 0, :2].logit()
    logits[0, 2:4, 0, 0] = target.boxes[0, 0, 2:]
    logits[0, 4, 0, 0] = 40
    assert values(cell_loss(logits, [target], CONFIG, epoch=0)) == pytest.approx(
        {"confidence": 0, "box": 0, "class": 0}, abs=1e-6
    )


def test_the_loss_of_half_precision_logits_is_computed_in_full() -> None:
    parts = cell_loss(random_logits(2, 5 + 3, 2, 2).bfloat16(), TWO_PICTURES, CONFIG, epoch=10)
    assert {part.dtype for part in parts.values()} == {torch.float32}


@pytest.mark.parametrize(("epoch", "gamma"), [(0, 0.0), (10, 1.0)])
def test_cells_that_are_ignored_count_nothing_unless_a_box_has_its_centre_there(epoch: int, gamma: float) -> None:
    logits = random_logits(2, 5 + 3, 2, 2)
    ignored = torch.tensor([[[True, True], [False, False]], [[False, False], [True, False]]])
    found = values(cell_loss(logits, TWO_PICTURES, CONFIG, epoch=epoch, ignored=ignored))
    expected = detection_by_hand(logits, TWO_PICTURES, gamma=gamma)
    for picture, row, column in ((0, 0, 1), (1, 1, 0)):
        score = sigmoid(logits[picture, 4, row, column].item())
        expected["confidence"] -= score**gamma * -math.log(1 - score) / 3
    assert found == pytest.approx(expected, rel=1e-5)
