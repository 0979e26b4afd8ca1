"""Whether two engines say the same about the same pictures: the network in torch, and the exported file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.engine.engine import Engine, Prediction
from service.pictures.imaging import UInt8Array, decode, letterbox
from training.data.datasets import DataSets
from training.inference import choose_tasks, read_taxonomy
from training.metrics.evaluation import evaluate_task

BATCH_SIZES = (1, 2, 3)
MAX_BOX_DIFFERENCE_PX = 0.5
MAX_PROBABILITY_DIFFERENCE = 1e-4
MIN_MASK_AGREEMENT = 0.999
# Two boxes that overlap by just the NMS threshold may be judged differently after rounding.
MIN_MATCHED = 0.999
MAX_METRIC_DIFFERENCE = 0.002


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest differences between two engines over some pictures; none in tasks that they do not answer.

    Attributes:
        boxes_px: between boxes of the same label whose scores agree; in input pixels.
        scores: between the scores of those boxes; 0..1.
        matched: share of the boxes, of both engines, that have such a partner.
        class_probs: 0..1.
        mask_agreement: share of mask cells with the same class, over all pictures.
        pictures: how many were compared.
    """

    boxes_px: float
    scores: float
    matched: float
    class_probs: float
    mask_agreement: float
    pictures: int

    def failures(self) -> list[str]:
        """Name what lies outside the tolerances, in words; empty when the engines agree."""
        checks = [
            (self.boxes_px > MAX_BOX_DIFFERENCE_PX, f"boxes part by {self.boxes_px:.3f} px, at most 0.5 is allowed"),
            (self.scores > MAX_PROBABILITY_DIFFERENCE, f"scores part by {self.scores:.2e}, at most 1e-4 is allowed"),
            (self.matched < MIN_MATCHED, f"only {self.matched:.2%} of the boxes have a partner, 99.9 % must"),
            (
                self.class_probs > MAX_PROBABILITY_DIFFERENCE,
                f"class probabilities part by {self.class_probs:.2e}, at most 1e-4 is allowed",
            ),
            (self.mask_agreement < MIN_MASK_AGREEMENT, f"masks agree on {self.mask_agreement:.3%}, 99.9 % must"),
        ]
        return [sentence for failed, sentence in checks if failed]


def load_squares(pictures: Sequence[Path], engine: Engine) -> list[UInt8Array]:
    """Decode and letterbox pictures for an engine, as the service does."""
    contract = engine.contract
    return [letterbox(decode(path.read_bytes()), contract.input_size, contract.letterbox.fill)[0] for path in pictures]


def compare_engines(
    reference: Engine, candidate: Engine, squares: Sequence[UInt8Array], *, batch_size: int
) -> Difference:
    """Ask both engines about the same letterboxed pictures, `batch_size` at a time.

    Raises:
        ValueError: there are no pictures.
    """
    if not squares:
        raise ValueError("parity needs at least one picture, got none")
    tasks = reference.contract.tasks
    pairs: list[tuple[Prediction, Prediction]] = []
    for start in range(0, len(squares), batch_size):
        batch = squares[start : start + batch_size]
        pairs.extend(zip(reference.predict(batch), candidate.predict(batch), strict=True))
    boxes, scores, unmatched, compared = 0.0, 0.0, 0, 0
    for one, other in pairs:
        for first, second in ((one, other), (other, one)) if "detect" in tasks else ():
            matched_boxes, matched_scores, missing = _match(first, second)
            boxes, scores = max(boxes, matched_boxes), max(scores, matched_scores)
            unmatched += missing
            compared += len(first.scores)
    return Difference(
        boxes_px=boxes,
        scores=scores,
        matched=1 - unmatched / max(compared, 1),
        class_probs=max(float(np.abs(one.class_probs - other.class_probs).max()) for one, other in pairs)
        if "classify" in tasks
        else 0.0,
        mask_agreement=float(np.mean([np.mean(one.mask == other.mask) for one, other in pairs]))
        if "segment" in tasks
        else 1.0,
        pictures=len(squares),
    )


def _match(one: Prediction, other: Prediction) -> tuple[float, float, int]:
    """Find each box's partner: same label, agreeing score, nearest corners; the largest differences, and the misses."""
    # Where a full list was cut off, a box within rounding of the last place may be on either side.
    last_place = max(one.scores.min(initial=1.0), other.scores.min(initial=1.0))
    boxes, scores, missing = 0.0, 0.0, 0
    for box, score, label in zip(one.boxes, one.scores, one.labels, strict=True):
        near = np.flatnonzero(
            (other.labels == label) & (np.abs(other.scores - score) <= 2 * MAX_PROBABILITY_DIFFERENCE)
        )
        distances = np.abs(other.boxes[near] - box).max(axis=1)
        if distances.min(initial=np.inf) > 2 * MAX_BOX_DIFFERENCE_PX:
            missing += bool(score > last_place + MAX_PROBABILITY_DIFFERENCE)
            continue
        boxes = max(boxes, float(distances.min()))
        scores = max(scores, float(np.abs(other.scores[near[distances.argmin()]] - score)))
    return boxes, scores, missing


def compare_metrics(
    reference: Engine, candidate: Engine, sets: DataSets, *, batch_size: int
) -> dict[str, tuple[float, float]]:
    """Measure all metrics of both engines over the validation splits: by "task/metric", reference first.

    Raises:
        DataError: the data has nothing of their tasks.
        TaxonomyError: it has other classes.
    """
    table = {}
    tasks = choose_tasks(reference, read_taxonomy(reference.contract).tasks, sets, owner="the model")
    for task in tasks:
        samples = sets.split(task).final.samples
        one = evaluate_task(reference, task, samples, batch_size=batch_size)
        other = evaluate_task(candidate, task, samples, batch_size=batch_size)
        table.update({f"{task}/{name}": (one[name], other[name]) for name in one})
    return table
