"""What every teacher is, whatever it is made of."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from training.config import Task


class TeacherError(ValueError):
    """A teacher cannot be had, or cannot teach what it was asked for."""


class Teacher(Protocol):
    """A network that answers one task and does not learn.

    Attributes:
        task: what it answers.
        input_size: side of the squares that it is to be shown; in pixels.
        letterboxed: how a picture becomes such a square: as in serving, with padding, which is how our own networks
            have learned to see; or, for ImageNet classifiers, the picture alone, stretched to the square.
        sha256: of all that its answers depend on; they are kept under it.
    """

    task: Task
    input_size: int
    letterboxed: bool
    sha256: str

    def answer(self, images: Tensor) -> Tensor:
        """[N, S, S, 3] uint8 RGB to its task's logits, without gradients: [N, G, h, w] for masks, [N, P] for classes.

        Raises:
            TeacherError: the network's output is no such thing.
        """
        ...
