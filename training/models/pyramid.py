"""What goes from the shared part of the network to its heads."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Pyramid(NamedTuple):
    """What a backbone sees, from fine to coarse; the number in a name is the stride in input pixels.

    Attributes:
        s4, s8, s16, s32: [N, C, S / stride, S / stride], each with channels of its own.
    """

    s4: Tensor
    s8: Tensor
    s16: Tensor
    s32: Tensor


class Features(NamedTuple):
    """What all heads read.

    Attributes:
        pyramid: of the backbone.
        levels: of the neck, from fine to coarse: [N, C, S / stride, S / stride], all with the same channels.
    """

    pyramid: Pyramid
    levels: tuple[Tensor, ...]
