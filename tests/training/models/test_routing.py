from typing import Literal

import pytest
import torch
from torch import Tensor

from training.models.routing import TaskGate

Mode = Literal["static", "dynamic"]


def make_levels(*, seed: int = 0) -> tuple[Tensor, ...]:
    """Three levels of four channels, of two pictures."""
    generator = torch.manual_seed(seed)
    return tuple(torch.randn(2, 4, side, side, generator=generator) for side in (8, 4, 2))


def make_gate(mode: Mode, *, moved: bool = False) -> TaskGate:
    """A gate as it starts, or with noise in all its weights."""
    gate = TaskGate(3, 4, mode)
    if moved:
        generator = torch.manual_seed(1)
        with torch.no_grad():
            for parameter in gate.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
    return gate


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_at_the_start_a_gate_lets_everything_through(mode: Mode) -> None:
    levels = make_levels()
    for level, found in zip(levels, make_gate(mode)(levels), strict=True):
        torch.testing.assert_close(found, level)


def test_the_weights_of_the_levels_sum_to_their_number_and_those_of_channels_lie_between_0_and_2() -> None:
    levels, channels = make_gate("static", moved=True).constants()
    assert levels.sum().item() == pytest.approx(3)
    assert (levels > 0).all()
    assert ((channels > 0) & (channels < 2)).all()
    assert channels.shape == (4,)


def test_a_static_gate_is_its_constants_times_the_levels() -> None:
    gate, levels = make_gate("static", moved=True), make_levels()
    by_level, by_channel = gate.constants()
    for index, (level, found) in enumerate(zip(levels, gate(levels), strict=True)):
        torch.testing.assert_close(found, level * by_level[index] * by_channel.view(4, 1, 1))


@pytest.mark.parametrize(("mode", "depends"), [("static", False), ("dynamic", True)])
def test_a_dynamic_gate_depends_on_the_picture_and_a_static_one_does_not(mode: Mode, depends: bool) -> None:
    gate, levels = make_gate(mode, moved=True), make_levels()
    weights = [(found / level)[:, :, 0, 0] for level, found in zip(levels, gate(levels), strict=True)]
    assert [torch.allclose(weight[0], weight[1], rtol=1e-3) for weight in weights] == [not depends] * 3


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_picture_is_gated_the_same_alone_and_in_a_batch(mode: Mode) -> None:
    gate, levels = make_gate(mode, moved=True), make_levels()
    alone = gate([level[:1] for level in levels])
    for one, together in zip(alone, gate(levels), strict=True):
        torch.testing.assert_close(one, together[:1])


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_every_weight_of_a_gate_learns_from_the_first_step(mode: Mode) -> None:
    gate = make_gate(mode)
    loss = torch.stack([level.square().sum() for level in gate(make_levels())]).sum()
    assert all(gradient.all() for gradient in torch.autograd.grad(loss, list(gate.parameters())))
