import torch
from torch import nn

from training.models.neck import build_single_level_neck


def test_the_neck_is_a_1x1_conv_without_bias_then_batch_norm_then_relu() -> None:
    neck = build_single_level_neck(576, 160)
    assert sum(parameter.numel() for parameter in neck.parameters()) == 576 * 160 + 2 * 160
    assert [type(module) for module in neck] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]


def test_the_neck_keeps_the_grid_and_says_nothing_negative() -> None:
    features = torch.randn(2, 8, 3, 5, generator=torch.manual_seed(0))
    found = build_single_level_neck(8, 4)(features)
    assert found.shape == (2, 4, 3, 5)
    assert (found >= 0).all()
    assert (found == 0).any()
