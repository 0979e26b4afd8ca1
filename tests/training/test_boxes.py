import math

import torch
from torch import Tensor

from training.boxes import decode_cell_boxes, encode_cell_boxes

STRIDE = 32


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
