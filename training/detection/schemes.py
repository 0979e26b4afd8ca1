"""The two ways of detecting behind one interface: what is learned from targets, what is read from logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from training.config import Config, DetectionLossConfig
from training.data.batches import BoxTargets
from training.detection.cells import assign_to_cells, cell_loss, decode_cell_boxes
from training.detection.losses import point_detection_loss
from training.detection.points import decode_distances, make_points
from training.detection.regions import find_ignored
from training.models.heads import BOX_ROWS
from training.options.model import PointDetectionConfig

_NEVER = -30.0  # a logit whose probability, 1e-13, adds nothing to a loss


class RawDetections(NamedTuple):
    """What detection logits say, point by point, in distributions that can be compared and drawn from.

    Attributes:
        objectness: [N, A, E] logits, each of an event of its own: an object of one class (E = D), or of any (E = 1).
        classes: [N, A, D] logits of a softmax: which class, given an object; None where `objectness` says it.
        boxes: [N, A, 4] what a box is regressed by, without bounds; in strides or the logarithm of strides.
    """

    objectness: Tensor
    classes: Tensor | None
    boxes: Tensor


class DetectionScheme(Protocol):
    """What detection logits mean.

    Attributes:
        strides: of the grids, from fine to coarse; in input pixels.
    """

    strides: tuple[int, ...]

    def loss(
        self, logits: Tensor, targets: Sequence[BoxTargets], *, input_size: int, epoch: int, epochs: int
    ) -> dict[str, Tensor]:
        """The named parts of the loss of a batch; `epoch` counts from 0 within the stage's `epochs`."""
        ...

    def hide(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Leave [D] classes, where true, out of all losses: the logits, with no score and no gradient for these."""
        ...

    def decode(self, logits: Tensor, *, input_size: int, limit: int | None = None) -> tuple[Tensor, Tensor]:
        """[N, A, 4] boxes, xyxy, clipped to the input, in input pixels; [N, A, D] scores, 0..1.

        With a `limit` only so many points, those whose best score is highest.
        """
        ...

    def read(self, logits: Tensor, *, input_size: int) -> RawDetections:
        """The parts that the logits consist of; gradients flow through them."""
        ...


class CellScheme:
    """One box a cell of a single grid: confidence times class probability (`training.detection.cells`)."""

    strides: tuple[int, ...] = (32,)

    def __init__(self, config: DetectionLossConfig) -> None:
        self._config = config

    def loss(
        self, logits: Tensor, targets: Sequence[BoxTargets], *, input_size: int, epoch: int, epochs: int
    ) -> dict[str, Tensor]:
        """Logits [N, 5 + D, h, w]: see `cell_loss`.

        Confidence is of no class, so that a region is ignored whatever its class; what classes are unknown in a
        picture, and how sure a box is, cells cannot be told.
        """
        del epochs
        (stride,) = self.strides
        assigned = [
            assign_to_cells(target.boxes, target.labels, grid_size=input_size // stride, stride=stride)
            for target in targets
        ]
        ignored = self._find_ignored(logits, targets, input_size) if self._config.ignore_regions else None
        return cell_loss(logits, assigned, self._config, epoch=epoch, ignored=ignored)

    def _find_ignored(self, logits: Tensor, targets: Sequence[BoxTargets], input_size: int) -> Tensor | None:
        count, rows, height, width = logits.shape
        points = make_points(input_size, self.strides, logits.device)
        ignored = find_ignored([target.to(logits.device) for target in targets], points, rows - BOX_ROWS)
        return None if ignored is None else ignored.any(dim=2).view(count, height, width)

    def hide(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Logits [N, 5 + D, h, w] whose softmax leaves those classes out."""
        hidden = torch.cat([classes.new_zeros(BOX_ROWS), classes])
        return logits.masked_fill(hidden[:, None, None], _NEVER)

    def decode(self, logits: Tensor, *, input_size: int, limit: int | None = None) -> tuple[Tensor, Tensor]:
        """Logits [N, 5 + D, h, w] to a box and D scores a cell; the best `limit` cells, or all row by row."""
        del input_size
        confidence = logits[:, BOX_ROWS - 1].sigmoid().flatten(1).unsqueeze(-1)
        classes = logits[:, BOX_ROWS:].flatten(2).transpose(1, 2).softmax(dim=-1)
        boxes, scores = decode_cell_boxes(logits[:, : BOX_ROWS - 1], self.strides[0]), confidence * classes
        if limit is None or scores.shape[1] <= limit:
            return boxes, scores
        best = scores.amax(dim=-1).topk(limit, dim=1).indices
        return take_points(boxes, best), take_points(scores, best)

    def read(self, logits: Tensor, *, input_size: int) -> RawDetections:
        """Logits [N, 5 + D, h, w] to confidence, class given an object, and boxes as `encode_cell_boxes` has them."""
        del input_size
        rows = logits.float().flatten(2).transpose(1, 2)
        return RawDetections(
            objectness=rows[..., BOX_ROWS - 1 : BOX_ROWS],
            classes=rows[..., BOX_ROWS:],
            boxes=torch.cat([rows[..., :2].sigmoid(), rows[..., 2 : BOX_ROWS - 1]], dim=-1),
        )


class PointScheme:
    """A box and a score a class for every point of several grids (`training.detection.points`)."""

    def __init__(self, strides: tuple[int, ...], reg_max: int, config: PointDetectionConfig) -> None:
        self.strides = strides
        self._reg_max = reg_max
        self._config = config

    def split(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Part [N, A, 4 * (reg_max + 1) + D] into box values and class logits."""
        values = 4 * (self._reg_max + 1)
        return logits[..., :values], logits[..., values:]

    def loss(
        self, logits: Tensor, targets: Sequence[BoxTargets], *, input_size: int, epoch: int, epochs: int
    ) -> dict[str, Tensor]:
        """Logits [N, A, 4 * (reg_max + 1) + D]: see `point_detection_loss`."""
        boxes, scores = self.split(logits)
        parts, _ = point_detection_loss(
            scores,
            boxes,
            targets,
            self._config,
            input_size=input_size,
            strides=self.strides,
            progress=epoch / epochs,
        )
        return parts

    def hide(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Logits [N, A, 4 * (reg_max + 1) + D] that score 0 for those classes."""
        hidden = torch.cat([classes.new_zeros(logits.shape[-1] - len(classes)), classes])
        return logits.masked_fill(hidden, _NEVER)

    def decode(self, logits: Tensor, *, input_size: int, limit: int | None = None) -> tuple[Tensor, Tensor]:
        """Logits [N, A, 4 * (reg_max + 1) + D] to a box and D scores a point; the best `limit` points, or all."""
        points, strides = make_points(input_size, self.strides, logits.device)
        if limit is not None and limit < logits.shape[1]:
            # Before anything else is computed: most points are of no use. Channel by channel, as the branch joined
            # them, because a transposed copy of all points takes longer than finding the best.
            channels = logits.transpose(1, 2)
            best = self.split(logits)[1].transpose(1, 2).amax(dim=1).topk(limit, dim=1).indices
            taken = channels.gather(2, best.unsqueeze(1).expand(-1, channels.shape[1], -1))
            logits, points, strides = taken.transpose(1, 2), points[best], strides[best]
        raw, scores = self.split(logits)
        boxes = decode_distances(raw, points, strides, self._reg_max)
        return boxes.clamp(0, input_size), scores.sigmoid()

    def read(self, logits: Tensor, *, input_size: int) -> RawDetections:
        """Logits [N, A, 4 * (reg_max + 1) + D] to a score a class and the sides of a box, xyxy in strides, a point."""
        raw, scores = self.split(logits.float())
        points, strides = make_points(input_size, self.strides, logits.device)
        boxes = decode_distances(raw, points, strides, self._reg_max)
        return RawDetections(objectness=scores, classes=None, boxes=boxes / strides.unsqueeze(-1))


def build_scheme(config: Config) -> DetectionScheme:
    """Build what the configured head's detection logits mean."""
    if config.model.head == "unified":
        return CellScheme(config.detection_loss)
    return PointScheme((8, 16, 32), config.model.reg_max, config.point_loss)


def take_points(values: Tensor, indices: Tensor) -> Tensor:
    """[N, A, V] and [N, K] indices into A to [N, K, V]."""
    # gather, because take_along_dim fixes the batch size of an exported graph.
    return values.gather(1, indices.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
