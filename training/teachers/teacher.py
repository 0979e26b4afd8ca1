"""What every teacher is, whatever it is made of."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from training.config import Task
from training.data.labelling.frame import Frame


class TeacherError(ValueError):
    """A teacher cannot be had, or cannot teach what it was asked for."""


class Teacher(Protocol):
    """A network that answers one task and does not learn.

    Attributes:
        task: what it answers.
        frame: how it is shown a picture: as in serving, with padding, which is how our own networks have learned to
            see; the picture alone, stretched, for ImageNet classifiers; or as the description of its file says.
        sha256: of all that its answers depend on; they are kept under it.
    """

    task: Task
    frame: Frame
    sha256: str

    def answer(self, images: Tensor) -> Tensor:
        """[N, H, W, 3] uint8 RGB, as its frame shows them, to its task's logits, without gradients.

        Returns:
            [N, G, h, w] for masks, [N, P] for classes.

        Raises:
            TeacherError: the network's output is no such thing.
        """
        ...
