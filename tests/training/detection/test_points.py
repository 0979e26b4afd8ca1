import math

import pytest
import torch
from torch import Tensor, nn

from training.detection.points import decode_distances, encode_distances, make_points

CPU = torch.device("cpu")
REG_MAX = 4


def say_distributions(distances: Tensor, reg_max: int) -> Tensor:
    """Logits [..., 4 * (reg_max + 1)] of distributions over the two bins next to each of [..., 4] distances."""
    bins = torch.arange(reg_max + 1.0)
    probs = (1 - (distances.unsqueeze(-1) - bins).abs()).clamp(min=0)
    return probs.clamp(min=1e-30).log().flatten(-2)


def random_distances(count: int, *, most: float) -> Tensor:
    """[1, count, 4] in strides."""
    return 0.1 + torch.rand(1, count, 4, generator=torch.manual_seed(0)) * (most - 0.1)


def test_points_lie_in_the_middle_of_their_cells_level_by_level_and_row_by_row() -> None:
    points, strides = make_points(16, (8, 16), CPU)
    assert points.tolist() == [[4, 4], [12, 4], [4, 12], [12, 12], [8, 8]]
    assert strides.tolist() == [8, 8, 8, 8, 16]


def test_points_come_in_the_order_in_which_feature_maps_are_flattened() -> None:
    points, _ = make_points(24, (8,), CPU)
    columns = torch.arange(3).expand(3, 3)
    assert torch.equal(points[:, 0], (columns.flatten() + 0.5) * 8)
    assert torch.equal(points[:, 1], (columns.T.flatten() + 0.5) * 8)


def test_a_stride_that_does_not_divide_the_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"multiple of every stride; got 48 and \(8, 32\)"):
        make_points(48, (8, 32), CPU)


def test_a_hand_worked_box_of_softplus_distances() -> None:
    # softplus(log(e^d - 1)) = d: 1 stride to the left, 2 up, 3 right, 0.5 down.
    raw = torch.tensor([[[math.log(math.exp(d) - 1) for d in (1, 2, 3, 0.5)]]])
    boxes = decode_distances(raw, torch.tensor([[40.0, 24.0]]), torch.tensor([16.0]), 0)
    torch.testing.assert_close(boxes, torch.tensor([[[24.0, -8.0, 88.0, 32.0]]]))


def test_a_side_is_the_expectation_of_its_distribution() -> None:
    thirds = [0.0, math.log(2), -100.0]  # 1/3 and 2/3 on the first two of 0, 1, 2 strides
    even = [0.0, 0.0, 0.0]
    raw = torch.tensor([[thirds + even + even[::-1] + [-100.0, -100.0, 0.0]]])
    boxes = decode_distances(raw, torch.tensor([[12.0, 12.0]]), torch.tensor([8.0]), 2)
    torch.testing.assert_close(boxes, torch.tensor([[[12 - 8 * 2 / 3, 4.0, 20.0, 28.0]]]))


@pytest.mark.parametrize("reg_max", [0, REG_MAX])
def test_encode_inverts_decode(reg_max: int) -> None:
    points, strides = make_points(64, (8, 16, 32), CPU)
    distances = random_distances(len(points), most=REG_MAX)
    raw = say_distributions(distances, reg_max) if reg_max else distances.expm1().log()
    boxes = decode_distances(raw, points, strides, reg_max)
    torch.testing.assert_close(encode_distances(boxes[0], points, strides), distances[0], atol=1e-4, rtol=1e-4)


def test_one_hot_distributions_say_whole_strides() -> None:
    points, strides = make_points(32, (8, 16), CPU)
    distances = random_distances(len(points), most=REG_MAX).round()
    boxes = decode_distances(say_distributions(distances, REG_MAX), points, strides, REG_MAX)
    assert torch.equal(encode_distances(boxes[0], points, strides), distances[0])


def test_distances_are_negative_where_the_point_lies_outside() -> None:
    distances = encode_distances(torch.tensor([[10.0, 10.0, 20.0, 20.0]]), torch.tensor([[26.0, 12.0]]), torch.ones(1))
    assert distances.tolist() == [[16, 2, -6, 8]]


def test_every_point_is_measured_to_every_box_by_broadcasting() -> None:
    points, strides = make_points(32, (8, 16), CPU)
    boxes = torch.tensor([[1.0, 2.0, 30.0, 20.0], [5.0, 5.0, 9.0, 31.0]])
    together = encode_distances(boxes, points[:, None], strides[:, None])
    for index, box in enumerate(boxes):
        assert torch.equal(together[:, index], encode_distances(box.expand(len(points), 4), points, strides))


@pytest.mark.parametrize("reg_max", [0, REG_MAX])
def test_boxes_move_with_their_points(reg_max: int) -> None:
    points, strides = make_points(32, (8, 16), CPU)
    raw = torch.randn(2, len(points), 4 * (reg_max + 1), generator=torch.manual_seed(0))
    moved = decode_distances(raw, points + torch.tensor([16.0, 32.0]), strides, reg_max)
    shift = torch.tensor([16.0, 32.0, 16.0, 32.0])
    torch.testing.assert_close(moved, decode_distances(raw, points, strides, reg_max) + shift)


@pytest.mark.parametrize("reg_max", [0, REG_MAX])
def test_whatever_the_head_says_is_a_box_around_its_point(reg_max: int) -> None:
    points, strides = make_points(32, (8, 16), CPU)
    raw = 1e3 * torch.randn(2, len(points), 4 * (reg_max + 1), generator=torch.manual_seed(0))
    boxes = decode_distances(raw, points, strides, reg_max)
    assert torch.isfinite(boxes).all()
    assert (boxes[..., :2] <= points).all()
    assert (boxes[..., 2:] >= points).all()


class Decoder(nn.Module):
    def __init__(self, reg_max: int) -> None:
        super().__init__()
        self.reg_max = reg_max

    def forward(self, raw: Tensor) -> Tensor:
        points, strides = make_points(32, (8, 16), raw.device)
        return decode_distances(raw, points, strides, self.reg_max)


@pytest.mark.parametrize("reg_max", [0, REG_MAX])
def test_decoding_is_exported_for_any_batch_size(reg_max: int) -> None:
    raw = torch.randn(3, 20, 4 * (reg_max + 1), generator=torch.manual_seed(0))
    decoder = Decoder(reg_max)
    shapes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(decoder, (raw[:2],), dynamic_shapes=shapes).module()
    torch.testing.assert_close(exported(raw), decoder(raw))
