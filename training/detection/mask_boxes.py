"""Masks hold boxes too: detection begins to learn while segmentation is learned, from the same pictures."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training.config import Task
from training.data.batches import BoxTargets, make_box_targets
from training.data.components import find_objects
from training.data.geometry import place_boxes
from training.data.placement import Placement
from training.data.transforms import Boxes
from training.detection.schemes import build_scheme
from training.hooks.context import StageContext
from training.hooks.hook import Hook, Step
from training.hooks.passes import mixed_precision

# So that progress times epochs does not fall short of the epoch it was made from.
_ROUNDING = 1e-6


class MaskBoxes(Hook):
    """Detection's loss on boxes around the objects of the masks, beside the loss of the masks.

    Only classes that masks can show are scored: that no mask has a cup does not mean that there is none.
    """

    name = "mask_boxes"

    def __init__(self, context: StageContext) -> None:
        """Draw the boxes of all training pictures.

        Args:
            context: of a stage that learns segmentation, whose taxonomy says which class of boxes a class of masks is.
        """
        detection_classes = context.taxonomy.segmentation_as_detection()
        self._model = context.model
        self._weight = context.stage.mask_boxes
        self._augment = context.stage.augment
        self._epochs = context.stage.epochs
        self._scheme = build_scheme(context.config)
        self._device = context.device
        shown = [label for label in detection_classes if label is not None]
        self._silent = torch.ones(context.model.num_classes[Task.DETECTION], dtype=torch.bool)
        self._silent[shown] = False
        names = np.array([-1 if label is None else label for label in detection_classes])
        dataset = context.datasets[Task.SEGMENTATION]
        self._boxes = [self._draw(dataset.load(index)[1], names) for index in range(len(dataset))]

    @staticmethod
    def _draw(mask: object, names: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Boxes:
        assert isinstance(mask, np.ndarray)  # noqa: S101 - the stage learns segmentation
        found = find_objects(mask)
        labels = names[found.labels]
        return Boxes(found.boxes, labels).select(labels >= 0)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Name "mask_boxes/score" and the other parts of detection's loss; pictures mixed of several are left out."""
        rows, placements = step.batch.placed()
        if not rows:
            return {}
        targets = [
            self._place(index, placement)
            for index, placement in zip(step.batch.indices[rows].tolist(), placements, strict=True)
        ]
        with mixed_precision(self._device):
            logits = self._model.head.answer(step.features, Task.DETECTION)[rows]
        parts = self._scheme.loss(
            self._scheme.hide(logits.float(), self._silent.to(self._device)),
            targets,
            input_size=step.batch.images.shape[1],
            epoch=int(step.progress * self._epochs + _ROUNDING),
            epochs=self._epochs,
        )
        return {f"{self.name}/{part}": self._weight * value for part, value in parts.items()}

    def _place(self, index: int, placement: Placement) -> BoxTargets:
        options = self._augment
        placed = place_boxes(
            self._boxes[index], placement, min_side_px=options.min_side_px, min_visible=options.min_visible
        )
        return make_box_targets(placed).to(self._device)
