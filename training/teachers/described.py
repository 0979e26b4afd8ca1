"""Teachers of other makes: any ONNX file that gives logits of classes or masks, as a few lines of TOML describe it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from training.config import Task
from training.data.labelling.faults import LabellingError
from training.data.labelling.network import Network
from training.data.labelling.teacher_file import ClassLogits, MaskLogits
from training.data.sets.data_file import BACKGROUND
from training.data.taxonomy import Taxonomy, TaxonomyError
from training.teachers.teacher import TeacherError

# Stands for 0 under the logarithm.
_TINY = 1e-6


class DescribedTeacher:
    """A file of `[output] kind` class-logits or mask-logits, whose names are found among the data's."""

    def __init__(self, path: Path, task: Task, taxonomy: Taxonomy) -> None:
        """Load the network.

        Args:
            path: the TOML.
            task: what it is to teach.
            taxonomy: the classes of the data.

        Raises:
            TeacherError: it cannot be used, is of another task or gives no logits, or does not know a class.
        """
        try:
            self._network = Network(path, threads=0)
        except LabellingError as error:
            raise TeacherError(f"the teacher {error}") from error
        described = self._network.description
        if not isinstance(described.output, ClassLogits | MaskLogits) or described.task is not task:
            kind = "mask-logits" if task is Task.SEGMENTATION else "class-logits"
            raise TeacherError(
                f"the teacher {path} gives {described.output.kind} and cannot teach {task}, which wants {kind}; "
                "`unihead-data label` makes labels out of everything else"
            )
        first = [BACKGROUND] if task is Task.SEGMENTATION else []
        try:
            self._columns = list(taxonomy.match(task, [*first, *self._network.names]))
        except TaxonomyError as error:
            raise TeacherError(f"the teacher {path} does not know the data's classes of {task}: {error}") from error
        # Places of its positions in [background, names], background being the first.
        self._places = torch.from_numpy(self._network.columns) + 1
        self._output = described.output
        if task is Task.SEGMENTATION and not (self._places == 0).any():
            raise TeacherError(f"the teacher {path} has no background; name its position in [classes] background")
        if task is Task.CLASSIFICATION:
            self._columns = [column + 1 for column in self._columns]
        self.task = task
        self.frame = described.input.frame
        self.sha256 = self._network.key

    def answer(self, images: Tensor) -> Tensor:
        """[N, H, W, 3] uint8 RGB to [N, P] or [N, G, h, w] logarithms of probabilities.

        Raises:
            TeacherError: the network's output is no such thing.
        """
        try:
            outputs = [
                next(iter(self._network.run(image, (image.shape[1], image.shape[0])).values()))
                for image in images.numpy()
            ]
        except LabellingError as error:
            raise TeacherError(f"the teacher {self._network.path}: {error}") from error
        values = torch.cat([torch.from_numpy(output) for output in outputs]).float()
        dimensions = 4 if self.task is Task.SEGMENTATION else 2
        if isinstance(self._output, MaskLogits) and self._output.layout == "nhwc" and values.ndim == dimensions:
            values = values.permute(0, 3, 1, 2)
        if values.ndim != dimensions or values.shape[:2] != (len(images), len(self._places)):
            raise TeacherError(
                f"the teacher {self._network.path} gave {list(values.shape)}; wanted a value for each of "
                f"{len(self._places)} names"
            )
        logs = values.log_softmax(dim=1) if self._output.activation == "softmax" else values.clamp(min=_TINY).log()
        # Positions with one name are one class, and their probabilities add up.
        taught = [logs[:, self._places == column].logsumexp(dim=1) for column in self._columns]
        return torch.stack(taught, dim=1)
