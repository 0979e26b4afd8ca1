"""Weighted boxes fusion beside a second telling of the paper, box by box in plain Python."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from training.data.labelling.answers import BoxAnswer
from training.data.labelling.fusion import Witness, fuse

Row = tuple[list[float], float, int]  # box, score, label


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def fuse_slowly(lists: Sequence[Sequence[Row]], weights: Sequence[float], threshold: float) -> list[Row]:
    """Sections 3.1 to 3.7 of arXiv:1910.13302, with scores scaled as its authors' code does for weights."""
    found: list[Row] = []
    for label in sorted({row[2] for rows in lists for row in rows}):
        rows = [
            (box, score * weight)
            for each, weight in zip(lists, weights, strict=True)
            for box, score, own in each
            if own == label
        ]
        clusters: list[list[tuple[list[float], float]]] = []
        fused: list[list[float]] = []
        for row in sorted(rows, key=lambda row: -row[1]):
            overlaps = [overlap(row[0], box) for box in fused]
            best = max(range(len(fused)), key=lambda place: overlaps[place], default=-1)
            if best < 0 or overlaps[best] <= threshold:
                clusters.append([])
                fused.append([])
                best = len(clusters) - 1
            clusters[best].append(row)
            total = sum(score for _, score in clusters[best])
            fused[best] = [sum(box[side] * score for box, score in clusters[best]) / total for side in range(4)]
        for cluster, box in zip(clusters, fused, strict=True):
            mean = sum(score for _, score in cluster) / len(cluster)
            found.append((box, mean * min(len(cluster), len(lists)) / sum(weights), label))
    return sorted(found, key=lambda row: -row[1])


def to_answer(rows: Sequence[Row]) -> BoxAnswer:
    boxes = np.array([row[0] for row in rows], dtype=np.float32).reshape(-1, 4)
    scores = np.array([row[1] for row in rows], dtype=np.float32)
    return BoxAnswer(boxes, scores, np.array([row[2] for row in rows], dtype=np.int64))


def draw_rows(rng: np.random.Generator, objects: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> list[Row]:
    """A detector: the objects a little off, some missed, some twice, some that nobody else sees."""
    rows: list[Row] = []
    for label, x, y, width, height in objects:
        for _ in range(int(rng.choice([0, 1, 1, 1, 2]))):
            box = np.array([x, y, x + width, y + height]) + rng.normal(0, 2, 4)
            rows.append((box.tolist(), float(rng.uniform(0.05, 1)), int(label)))
    rows.append(([1, 1, 9, 9], float(rng.uniform()), int(rng.integers(3))))
    return sorted(rows, key=lambda row: -row[1])


@pytest.mark.parametrize(("detectors", "seed"), list(itertools.product([2, 3, 4], range(5))))
def test_fusion_is_that_of_the_paper(detectors: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    objects = np.column_stack([rng.integers(0, 3, 12), rng.uniform(0, 80, (12, 2)), rng.uniform(8, 30, (12, 2))])
    lists = [draw_rows(rng, objects) for _ in range(detectors)]
    weights = rng.uniform(0.3, 2, detectors).tolist()
    threshold = float(rng.uniform(0.4, 0.7))
    found = fuse(
        [Witness(to_answer(rows), weight, [True] * 3) for rows, weight in zip(lists, weights, strict=True)], threshold
    )
    wanted = to_answer(fuse_slowly(lists, weights, threshold))
    assert len(wanted.scores) < sum(map(len, lists))
    assert found.labels.tolist() == wanted.labels.tolist()
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-5)
    np.testing.assert_allclose(found.boxes, wanted.boxes, rtol=1e-4, atol=1e-4)


def test_what_both_see_is_surer_than_what_one_sees() -> None:
    both = ([0.0, 0.0, 10.0, 10.0], 0.8, 0)
    found = fuse(
        [Witness(to_answer([both, ([50, 50, 60, 60], 0.8, 0)]), 1, [True]), Witness(to_answer([both]), 1, [True])], 0.5
    )
    assert found.scores.tolist() == pytest.approx([0.8, 0.4])


def test_boxes_of_a_class_that_one_alone_knows_stay_as_they_are() -> None:
    rows: list[Row] = [([0, 0, 10, 10], 0.9, 1), ([0, 0, 10, 9], 0.6, 1)]
    found = fuse([Witness(to_answer(rows), 0.5, [True, True]), Witness(to_answer([]), 1, [True, False])], 0.5)
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])
    assert found.boxes.tolist() == [row[0] for row in rows]


def test_nothing_fused_is_nothing() -> None:
    assert len(fuse([Witness(to_answer([]), 1, [True])] * 2, 0.5).boxes) == 0
