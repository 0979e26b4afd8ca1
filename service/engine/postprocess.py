"""From what the network says about its square to what a person asks about the picture: pure, numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from service.engine.contract import ModelContract
from service.engine.engine import Prediction
from service.pictures.imaging import Letterbox, UInt8Array

if TYPE_CHECKING:
    from service.telemetry.spans import SpanContext


@dataclass(frozen=True, slots=True)
class Detection:
    """One object found."""

    box: tuple[float, float, float, float]  # xyxy, pixels of the upright original, clipped to it
    label: str
    label_id: int
    score: float  # 0..1


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How probable one class is for the whole picture."""

    label: str
    label_id: int
    probability: float  # 0..1


@dataclass(frozen=True, slots=True)
class Segment:
    """How much of the picture one class covers."""

    label: str
    label_id: int
    pixels: int
    fraction: float  # 0..1


@dataclass(frozen=True, slots=True)
class Answer:
    """What one forward pass says about one picture.

    Attributes:
        prediction: of the tasks that the model serves, in pixels of the network input; what needs another raises
            TaskNotServed.
        place: the way back to the original picture.
        contract: of the model that ran.
        origin: the pass in the trace of the request that began it, if that is traced.
    """

    prediction: Prediction
    place: Letterbox
    contract: ModelContract
    origin: SpanContext | None = None

    def detections(self, *, score_threshold: float | None, max_detections: int) -> list[Detection]:
        """Keep the boxes that score at least `score_threshold`, best first, in pixels of the original picture.

        None: the threshold of the model that answered.
        """
        found, names = self.prediction, self.contract.detection_classes
        least = self.contract.score_threshold if score_threshold is None else score_threshold
        keep = np.flatnonzero(found.scores >= least)[:max_detections]
        boxes = self.place.boxes_to_original(found.boxes[keep]).tolist()
        kept = zip(boxes, found.labels[keep].tolist(), found.scores[keep].tolist(), strict=True)
        return [Detection(tuple(box), names[label], label, score) for box, label, score in kept]

    def classes(self, *, top_k: int) -> list[ClassScore]:
        """List the `top_k` most probable classes, most probable first; ties go to the lower id."""
        probs, names = self.prediction.class_probs, self.contract.classification_classes
        best = np.argsort(-probs, kind="stable")[:top_k]
        return [ClassScore(names[i], i, float(probs[i])) for i in best.tolist()]

    def mask(self) -> UInt8Array:
        """Class ids at the size of the original picture: [H, W]."""
        return self.place.mask_to_original(self.prediction.mask, self.contract.mask_stride)

    def segments(self) -> list[Segment]:
        """Share of each class that occurs, in pixels of the original, largest first; fractions sum to 1."""
        cells, names = self.prediction.mask, self.contract.segmentation_classes
        # Counting cells, each as often as it has pixels, is ten times as fast as counting pixels.
        weights = self.place.pixels_of_cells(len(cells), self.contract.mask_stride)
        counts = np.bincount(cells.ravel(), weights.ravel(), minlength=len(names)).astype(np.int64)
        present = [i for i in np.argsort(-counts, kind="stable").tolist() if counts[i]]
        total = self.place.width * self.place.height
        return [Segment(names[i], i, int(counts[i]), float(counts[i] / total)) for i in present]
