import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from export.parity import compare_engines
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.pictures.imaging import UInt8Array

CONTRACT = ModelContract(
    version="fake-1",
    preset="fake",
    git_commit="unknown",
    weights_sha256="0" * 64,
    input_size=8,
    mask_stride=1,
    detection_strides=(8,),
    score_floor=0.001,
    iou_threshold=0.5,
    max_detections=3,
    segmentation_classes=("background", "cat"),
    detection_classes=("cat", "dog"),
    classification_classes=("cat", "dog"),
)


@dataclasses.dataclass
class FixedSession:
    """Says the same about every picture."""

    boxes: list[list[float]]
    scores: list[float]
    labels: list[int]
    mask_value: int = 0
    first_class: float = 0.25

    def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
        count = len(images)

        def repeat(values: list[list[float]] | list[float] | list[int], kind: str) -> NDArray[np.generic]:
            return np.repeat(np.array([values], dtype=kind), count, axis=0)

        empty = CONTRACT.max_detections - len(self.scores)
        return {
            "boxes": repeat(self.boxes + [[0.0] * 4] * empty, "float32"),
            "scores": repeat(self.scores + [0.0] * empty, "float32"),
            "labels": repeat(self.labels + [0] * empty, "int64"),
            "num_detections": np.full(count, len(self.scores)),
            "mask": np.full((count, 8, 8), self.mask_value, dtype=np.uint8),
            "class_probs": repeat([self.first_class, 1 - self.first_class], "float32"),
        }


BASE = FixedSession([[0, 0, 4, 4], [2, 2, 8, 8]], [0.9, 0.5], [0, 1])
SQUARES = [np.zeros((8, 8, 3), dtype=np.uint8)] * 3


def failures(candidate: FixedSession, batch_size: int = 2) -> list[str]:
    found = compare_engines(Engine(BASE, CONTRACT), Engine(candidate, CONTRACT), SQUARES, batch_size=batch_size)
    return found.failures()


def test_an_engine_agrees_with_itself() -> None:
    found = compare_engines(Engine(BASE, CONTRACT), Engine(BASE, CONTRACT), SQUARES, batch_size=2)
    assert not found.failures()
    assert (found.boxes_px, found.scores, found.class_probs) == (0, 0, 0)
    assert (found.matched, found.mask_agreement, found.pictures) == (1, 1, 3)


def test_the_order_of_boxes_with_equal_scores_does_not_matter() -> None:
    one = FixedSession([[0, 0, 4, 4], [2, 2, 8, 8]], [0.5, 0.5], [0, 0])
    other = FixedSession([[2, 2, 8, 8], [0, 0, 4, 4]], [0.5, 0.5], [0, 0])
    found = compare_engines(Engine(one, CONTRACT), Engine(other, CONTRACT), SQUARES, batch_size=3)
    assert not found.failures()


@pytest.mark.parametrize(
    ("candidate", "complaint"),
    [
        (dataclasses.replace(BASE, boxes=[[0, 0, 4, 4.7], [2, 2, 8, 8]]), "boxes part by 0.700 px"),
        (dataclasses.replace(BASE, boxes=[[0, 0, 4, 7], [2, 2, 8, 8]]), "have a partner"),
        (dataclasses.replace(BASE, scores=[0.90015, 0.5]), "scores part by"),
        (dataclasses.replace(BASE, scores=[0.89, 0.5]), "have a partner"),
        (dataclasses.replace(BASE, labels=[1, 1]), "have a partner"),
        (FixedSession([[2, 2, 8, 8]], [0.5], [1]), "have a partner"),
        (dataclasses.replace(BASE, mask_value=1), "masks agree on 0.000%"),
        (dataclasses.replace(BASE, first_class=0.2502), "class probabilities part by"),
    ],
)
def test_each_difference_is_named(candidate: FixedSession, complaint: str) -> None:
    assert any(complaint in sentence for sentence in failures(candidate))


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        compare_engines(Engine(BASE, CONTRACT), Engine(BASE, CONTRACT), [], batch_size=1)
