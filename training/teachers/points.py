"""A detector that teaches point by point: it is asked about the very squares that are learned from.

Labels say where objects are in the picture; what a detector with the same grids says about an augmented square is a
target for every point, with all the doubts that labels leave out. So teach dense detectors each other: LD
(arXiv:2102.12252), and its soft scores by GFL's quality focal loss (arXiv:2006.04388).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from training.config import Config, Task
from training.data.labelling.faults import LabellingError
from training.data.labelling.network import Network
from training.data.labelling.teacher_file import Yolox
from training.data.taxonomy import Taxonomy, normalise_name
from training.detection.losses import quality_focal_loss
from training.detection.points import make_points
from training.detection.schemes import PointScheme, build_scheme
from training.hooks.context import StageContext
from training.hooks.hook import Hook, Step
from training.hooks.passes import mixed_precision
from training.models.multitask import MultiTaskModel
from training.options.model import PointDetectionConfig
from training.teachers.any_size import free_input
from training.teachers.teacher import TeacherError

# Below it a point's box means little, and there are thousands; as in training.continual.distillation.
_SURE_SCORE: Final = 0.1
# The exponent of a point that sees nothing may be anything.
_MOST_EXPONENT: Final = 20.0
_EXPORT: Final = "export it with a free batch, height and width"
_BOX_VALUES: Final = 5  # centre, size, objectness
_TOLERANCE: Final = 1e-2  # of raw values; a file that is told its size in other places is off by far more


class PointAnswer(NamedTuple):
    """What a teacher says at each point.

    Attributes:
        scores: [N, A, T] of each class that it teaches, 0..1.
        boxes: [N, A, 4] xyxy, sides > 0, not clipped; in pixels of the square.
    """

    scores: Tensor
    boxes: Tensor


class PointTeacher:
    """A detector of `[output] kind` yolox whose grids are those of the network that learns.

    Attributes:
        columns: [T] labels of the classes that it knows by name; about the others it says nothing.
        sha256: of all that its answers depend on.
    """

    def __init__(self, path: Path, taxonomy: Taxonomy, strides: Sequence[int]) -> None:
        """Load the network for squares of any size; it runs on the CPU, with as many threads as torch has.

        Args:
            path: its TOML.
            taxonomy: the classes of the data.
            strides: of the grids of the network that learns, in the order of its points; in pixels.

        Raises:
            TeacherError: it cannot be used, has other grids, or knows none of the classes.
        """
        try:
            fixed = Network(path)
            self._network = Network(path, threads=torch.get_num_threads(), change=free_input)
        except LabellingError as error:
            raise TeacherError(f"the teacher {error}") from error
        output = self._network.description.output
        if not isinstance(output, Yolox) or output.strides != tuple(strides):
            found = f"strides {list(output.strides)}" if isinstance(output, Yolox) else output.kind
            raise TeacherError(
                f"the teacher {path} gives {found}; detection is taught by yolox at strides {list(strides)}, and "
                "`unihead-data label` makes labels out of everything else"
            )
        self._output = output
        self.sha256 = self._network.key
        names = [normalise_name(name) for name in self._network.names]
        known = {
            column: names.index(normalise_name(name))
            for column, name in enumerate(taxonomy.detection)
            if normalise_name(name) in names
        }
        if not known:
            raise TeacherError(f"the teacher {path} knows none of the data's {len(taxonomy.detection)} classes by name")
        self.columns = torch.tensor(list(known))
        self._positions = [torch.from_numpy(np.flatnonzero(self._network.columns == at)) for at in known.values()]
        self._require_freedom(fixed)

    def answer(self, images: Tensor) -> PointAnswer:
        """Ask about [N, S, S, 3] uint8 RGB squares; S is a multiple of the strides.

        Raises:
            TeacherError: its output is no such grid.
        """
        size = images.shape[1]
        values = torch.from_numpy(self._run(self._network, images)).to(images.device).float()
        points, strides = make_points(size, self._output.strides, images.device)
        wanted = [len(images), len(points), _BOX_VALUES + len(self._network.columns)]
        if list(values.shape) != wanted:
            raise TeacherError(
                f"the teacher {self._network.path} gave {list(values.shape)} for squares of {size} px; "
                f"wanted {wanted}; {_EXPORT}"
            )
        shares = values[..., 4:].sigmoid() if self._output.activation == "sigmoid" else values[..., 4:].clamp(0, 1)
        scores = shares[..., :1] * shares[..., 1:]
        taught = torch.stack([scores[..., at].amax(dim=-1) for at in self._positions], dim=-1)
        # A point is the middle of its cell, and centres count from the cell's corner.
        sides = strides.unsqueeze(-1)
        centres = (values[..., :2] - 0.5) * sides + points
        halves = values[..., 2:4].clamp(max=_MOST_EXPONENT).exp() * sides / 2
        return PointAnswer(taught, torch.cat([centres - halves, centres + halves], dim=-1))

    def _run(self, network: Network, images: Tensor) -> NDArray[np.float32]:
        size = images.shape[1]
        try:
            (only,) = network.run_batch(images.cpu().numpy(), (size, size)).values()
        except LabellingError as error:
            raise TeacherError(f"the teacher {network.path}: {error}") from error
        return only

    def _require_freedom(self, fixed: Network) -> None:
        """See that the file, once its size is free, says what it said before, and the same alone as among others."""
        frame = fixed.description.input.frame
        rng = np.random.default_rng(0)
        noise = torch.from_numpy(rng.integers(0, 256, (2, frame.height, frame.width, 3), dtype=np.uint8))
        try:
            both = self._run(self._network, noise)
            same = [
                np.abs(self._run(fixed, noise[row : row + 1]) - both[row : row + 1]).max() < _TOLERANCE
                for row in range(len(noise))
            ]
        except (TeacherError, ValueError) as error:
            raise TeacherError(f"{error}; {_EXPORT}") from error
        if not all(same):
            raise TeacherError(f"the teacher {fixed.path} says something else in a batch; {_EXPORT}")


@dataclass(frozen=True, slots=True, eq=False)
class PointLesson:
    """One teacher, and what its loss weighs."""

    teacher: PointTeacher
    weight: float


@dataclass(frozen=True, eq=False)
class PointLoss(Hook):
    """Draws detection to what teachers say at every point.

    The scores' part is quality focal loss over all points and the classes that a teacher knows; the boxes' is GIoU
    where its best score is over 0.1, weighted by that score. Both are summed and divided by the sum of these scores (at
    least 1), as the labels' losses are by their boxes, and weighted like those.

    Attributes:
        model: that learns.
        task: of the stage.
        scheme: how to read the logits of detection.
        weights: of scores and boxes.
        lessons: of the teachers.
    """

    name = "point_teacher"

    model: MultiTaskModel
    task: Task
    scheme: PointScheme
    weights: PointDetectionConfig
    lessons: Sequence[PointLesson]

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Name "point_teacher/score" and "point_teacher/box"."""
        images, logits = step.batch.images, step.logits
        if self.task is not Task.DETECTION:
            with mixed_precision(logits.device):
                logits = self.model.head.answer(step.features, Task.DETECTION)
        said = self.scheme.read(logits, input_size=images.shape[1])
        _, strides = make_points(images.shape[1], self.scheme.strides, logits.device)
        boxes = said.boxes * strides.unsqueeze(-1)
        score, box = said.boxes.new_zeros(()), said.boxes.new_zeros(())
        for lesson in self.lessons:
            answer = lesson.teacher.answer(images)
            best = answer.scores.amax(dim=-1)
            sure = best > _SURE_SCORE
            share = lesson.weight / best[sure].sum().clamp(min=1)
            taught = said.objectness[..., lesson.teacher.columns.to(logits.device)]
            score = score + share * quality_focal_loss(taught, answer.scores).sum()
            box = box + share * (best[sure] * generalized_box_iou_loss(boxes[sure], answer.boxes[sure])).sum()
        return {
            f"{self.name}/score": self.weights.score_weight * score,
            f"{self.name}/box": self.weights.box_weight * box,
        }


def open_point_teacher(source: str, config: Config, taxonomy: Taxonomy) -> PointTeacher:
    """Open a teacher of detection.

    Args:
        source: FILE.toml, which describes a detector of any make that gives grids.
        config: of the run, whose network's grids are to be the teacher's.
        taxonomy: the classes of the data.

    Raises:
        TeacherError: it is none, or cannot teach this network.
    """
    if not source.endswith(".toml"):
        raise TeacherError(
            f"{source!r} cannot teach detection; wanted FILE.toml that describes a detector with [output] kind yolox"
        )
    scheme = build_scheme(config)
    if not isinstance(scheme, PointScheme):
        raise TeacherError("only a network with branches can be taught detection; [model] head is unified")
    teacher = PointTeacher(Path(source), taxonomy, scheme.strides)
    teacher.answer(torch.zeros(1, config.input_size, config.input_size, 3, dtype=torch.uint8))
    return teacher


def build_point_loss(context: StageContext) -> PointLoss | None:
    """Open the teachers of detection that a stage names; None where it names none.

    Raises:
        TeacherError: one cannot be had, or cannot teach.
    """
    stage, scheme = context.stage, build_scheme(context.config)
    lessons = [
        PointLesson(open_point_teacher(one.source, context.config, context.taxonomy), one.weight)
        for one in stage.teachers
        if (one.task or stage.task) is Task.DETECTION
    ]
    if not lessons or not isinstance(scheme, PointScheme):
        return None
    return PointLoss(context.model, stage.task, scheme, context.config.point_loss, lessons)
