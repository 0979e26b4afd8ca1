import pytest
import torch
from torch import Tensor, nn

from training.models.neck import FeaturePyramid, SingleLevel
from training.models.pyramid import Pyramid

CHANNELS = (3, 4, 6, 8)


def make_pyramid(*, size: int = 64) -> Pyramid:
    """Noise of a picture of `size` px a side."""
    generator = torch.manual_seed(0)
    shapes = zip(CHANNELS, (4, 8, 16, 32), strict=True)
    return Pyramid(*(torch.randn(2, count, size // s, size // s, generator=generator) for count, s in shapes))


def make_neck(*, bottom_up: bool, kernel_size: int = 3) -> FeaturePyramid:
    torch.manual_seed(0)
    return FeaturePyramid(CHANNELS, 5, kernel_size=kernel_size, bottom_up=bottom_up).eval()


def moved_levels(neck: FeaturePyramid, **changed: Tensor) -> list[bool]:
    """Which levels at the strides 8, 16 and 32 say something else when a feature of the backbone changes."""
    before, after = neck(make_pyramid()), neck(make_pyramid()._replace(**changed))
    return [not torch.equal(one, other) for one, other in zip(before, after, strict=True)]


def test_the_neck_is_a_1x1_conv_without_bias_then_batch_norm_then_relu() -> None:
    neck = SingleLevel(576, 160)
    assert sum(parameter.numel() for parameter in neck.parameters()) == 576 * 160 + 2 * 160
    assert [type(module) for module in neck] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]


def test_the_neck_keeps_the_grid_and_says_nothing_negative() -> None:
    features = torch.randn(2, 8, 3, 5, generator=torch.manual_seed(0))
    (found,) = SingleLevel(8, 4)(make_pyramid()._replace(s32=features))
    assert found.shape == (2, 4, 3, 5)
    assert (found >= 0).all()
    assert (found == 0).any()


def test_the_single_level_reads_the_coarsest_features_alone() -> None:
    neck, pyramid = SingleLevel(8, 4).eval(), make_pyramid()
    nothing = Pyramid(*(torch.zeros_like(feature) for feature in pyramid))
    assert torch.equal(neck(pyramid)[0], neck(nothing._replace(s32=pyramid.s32))[0])


@pytest.mark.parametrize("bottom_up", [False, True])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_the_pyramid_has_three_levels_of_the_same_channels_at_their_strides(bottom_up: bool, kernel_size: int) -> None:
    levels = make_neck(bottom_up=bottom_up, kernel_size=kernel_size)(make_pyramid())
    assert [level.shape for level in levels] == [(2, 5, 8, 8), (2, 5, 4, 4), (2, 5, 2, 2)]


@pytest.mark.parametrize("bottom_up", [False, True])
def test_what_the_coarsest_features_see_reaches_every_level(bottom_up: bool) -> None:
    assert moved_levels(make_neck(bottom_up=bottom_up), s32=make_pyramid().s32 + 1) == [True, True, True]


@pytest.mark.parametrize(("bottom_up", "reached"), [(False, [True, False, False]), (True, [True, True, True])])
def test_what_the_finest_features_see_reaches_the_coarser_levels_from_the_bottom_up_alone(
    bottom_up: bool, reached: list[bool]
) -> None:
    assert moved_levels(make_neck(bottom_up=bottom_up), s8=make_pyramid().s8 + 1) == reached


@pytest.mark.parametrize("bottom_up", [False, True])
def test_features_at_stride_4_are_not_for_the_neck(bottom_up: bool) -> None:
    assert moved_levels(make_neck(bottom_up=bottom_up), s4=make_pyramid().s4 + 1) == [False, False, False]
