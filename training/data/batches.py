"""What a training step is given: pictures of one task as the network sees them, and what is wanted of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from service.pictures.imaging import UInt8Array
from training.data.placement import Placement
from training.data.transforms import Boxes, Target

_NO_BOXES, _NO_LABELS = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
_ALL_KNOWN = torch.zeros(0, 0, dtype=torch.bool)


class BoxTargets(NamedTuple):
    """What is to be found in one picture, and where it cannot be told; see `training.data.transforms.Boxes`.

    Attributes:
        boxes: [M, 4] xyxy, sides > 0; in input pixels.
        labels: [M] class ids.
        scores: [M] how sure each is, 0..1; None: all are 1.
        ignored: [I, 4] regions that are no background of their class; in input pixels.
        ignored_labels: [I] class ids, or `ANY_CLASS`.
        areas: [R, 4] parts of the square in which some classes are unknown, none on another; in input pixels.
        unknown: [R, D] which.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor | None = None
    ignored: Tensor = _NO_BOXES
    ignored_labels: Tensor = _NO_LABELS
    areas: Tensor = _NO_BOXES
    unknown: Tensor = _ALL_KNOWN

    def to(self, device: torch.device) -> BoxTargets:
        """The same on a device."""
        return BoxTargets(
            boxes=self.boxes.to(device),
            labels=self.labels.to(device),
            scores=None if self.scores is None else self.scores.to(device),
            ignored=self.ignored.to(device),
            ignored_labels=self.ignored_labels.to(device),
            areas=self.areas.to(device),
            unknown=self.unknown.to(device),
        )


def make_box_targets(boxes: Boxes) -> BoxTargets:
    """The objects and regions of a picture as the network sees it, for a loss."""
    return BoxTargets(
        boxes=torch.from_numpy(boxes.boxes),
        labels=torch.from_numpy(boxes.labels),
        scores=None if boxes.scores is None else torch.from_numpy(boxes.scores),
        ignored=torch.from_numpy(boxes.ignored),
        ignored_labels=torch.from_numpy(boxes.ignored_labels),
        areas=torch.from_numpy(boxes.areas),
        unknown=torch.from_numpy(boxes.unknown),
    )


BatchTargets: TypeAlias = Tensor | tuple[BoxTargets, ...]


class Batch(NamedTuple):
    """Pictures as the network sees them, and what the task's loss wants to know of them.

    Attributes:
        images: [N, S, S, 3] uint8 RGB.
        targets: masks [N, S / mask_stride, S / mask_stride] int64, boxes per picture, or class ids [N].
        indices: [N] rows of the pictures in the training split.
        placements: where each picture lies in its square, to place what is cached for it; None for a picture that is
            mixed of several, empty where nobody asks.
    """

    images: Tensor
    targets: BatchTargets
    indices: Tensor
    placements: tuple[Placement | None, ...] = ()

    def select(self, rows: Sequence[int]) -> Batch:
        """Some pictures of it, in this order."""
        chosen, targets = list(rows), self.targets
        wanted = tuple(targets[row] for row in chosen) if isinstance(targets, tuple) else targets[chosen]
        placements = tuple(self.placements[row] for row in chosen) if self.placements else ()
        return Batch(self.images[chosen], wanted, self.indices[chosen], placements)

    def placed(self) -> tuple[list[int], list[Placement]]:
        """Those that show one picture alone: their rows in the batch, and where each lies."""
        pairs = [(row, place) for row, place in enumerate(self.placements) if place is not None]
        return [row for row, _ in pairs], [place for _, place in pairs]


def move_batch(batch: Batch, device: torch.device) -> Batch:
    """Give the same batch on a device."""
    targets = (
        batch.targets.to(device)
        if isinstance(batch.targets, Tensor)
        else tuple(target.to(device) for target in batch.targets)
    )
    return batch._replace(
        images=batch.images.to(device, non_blocking=True), targets=targets, indices=batch.indices.to(device)
    )


def collate(examples: Sequence[tuple[UInt8Array, Target]], indices: Sequence[int]) -> Batch:
    """Stack pictures of one task, as the network sees them, into a batch."""
    images = torch.from_numpy(np.stack([image for image, _ in examples]))
    rows = torch.tensor(indices, dtype=torch.long)
    targets = [target for _, target in examples]
    if isinstance(targets[0], Boxes):
        return Batch(images, tuple(make_box_targets(one) for one in targets if isinstance(one, Boxes)), rows)
    return Batch(images, torch.from_numpy(np.stack([np.asarray(target) for target in targets])).long(), rows)
