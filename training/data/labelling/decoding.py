"""From the outputs of a foreign network to what they say about the original picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.labelling.answers import BoxAnswer, ClassAnswer, MaskAnswer
from training.data.labelling.faults import LabellingError
from training.data.labelling.suppression import suppress
from training.data.labelling.teacher_file import BoxLists, ClassLogits, MaskLogits, Yolox
from training.data.placement import Placement, Span

# What is less sure is kept nowhere; detectors end with hundreds of such boxes in each picture.
LEAST_SCORE: Final = 0.01
# As many as DETR-like networks give. COCO's metric takes a hundred a class: with a hundred of all it is 0.001 lower.
MOST_BOXES: Final = 300
# So many go into suppression at most, the best first.
_MOST_CANDIDATES: Final = 1000
_ROUNDING: Final = 0.01  # so far are scores off 0..1 that were computed in half precision
# Values that are upsampled at a time, so that large pictures need no gigabytes.
_MOST_VALUES: Final = 1 << 23

Outputs: TypeAlias = Mapping[str, NDArray[Any]]
# Place of each of the network's positions among its names, -1 for background.
Columns: TypeAlias = NDArray[np.int64]


def decode_classes(logits: NDArray[Any], output: ClassLogits, columns: Columns, count: int) -> ClassAnswer:
    """[1, C] to the probabilities of `count` names; positions with one name are one class.

    Raises:
        LabellingError: another shape, or no probabilities.
    """
    if logits.shape != (1, len(columns)):
        raise LabellingError(f"gave {list(logits.shape)}; wanted [1, {len(columns)}], a value for each of the names")
    probs = _activate(logits[0].astype(np.float64), output.activation)
    summed = np.zeros(count)
    np.add.at(summed, columns[columns >= 0], probs[columns >= 0])
    return ClassAnswer(_require_shares(summed).round(6).astype(np.float32))


def decode_mask_logits(
    logits: NDArray[Any], output: MaskLogits, columns: Columns, count: int, placement: Placement
) -> MaskAnswer:
    """[1, C, h, w] over the input to the best class of each pixel of the picture, bilinear between the cells' centres.

    Raises:
        LabellingError: another shape, or no probabilities.
    """
    if output.layout == "nhwc" and logits.ndim == 4:  # noqa: PLR2004 - N, H, W, C
        logits = logits.transpose(0, 3, 1, 2)
    if logits.ndim != 4 or logits.shape[:2] != (1, len(columns)):  # noqa: PLR2004 - N, C, H, W
        raise LabellingError(
            f"gave {list(logits.shape)} as {output.layout}; wanted one picture and {len(columns)} classes, a name each"
        )
    planes = [Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32)) for plane in logits[0]]
    (left, right), (top, bottom) = (
        (span.offset * cells / span.canvas, (span.offset + span.resized) * cells / span.canvas)
        for span, cells in ((placement.x, logits.shape[3]), (placement.y, logits.shape[2]))
    )
    width, height = placement.x.length, placement.y.length
    ids, sure = np.empty((height, width), dtype=np.uint8), np.empty((height, width), dtype=np.uint8)
    step = max(1, _MOST_VALUES // (len(planes) * width))
    for first in range(0, height, step):
        last = min(first + step, height)
        upper, lower = (top + (bottom - top) * row / height for row in (first, last))
        box = (left, upper, right, lower)
        size = (width, last - first)
        strip = np.stack([np.asarray(plane.resize(size, Image.Resampling.BILINEAR, box)) for plane in planes])
        summed = np.zeros((count + 1, last - first, width), dtype=np.float32)  # background first
        for column, plane_probs in zip(columns, _activate(strip, output.activation), strict=True):
            summed[column + 1] += plane_probs
        ids[first:last] = summed.argmax(axis=0)
        sure[first:last] = np.rint(255 * _require_shares(summed.max(axis=0)))
    return MaskAnswer(ids, sure)


def decode_mask_ids(ids: NDArray[Any], columns: Columns, placement: Placement) -> MaskAnswer:
    """[1, h, w] over the input, perhaps with a channel of 1, to the class of each pixel: of the cell at its centre.

    Raises:
        LabellingError: another shape, or ids that no name stands for.
    """
    channel = next((axis for axis in (1, 3) if ids.ndim == 4 and ids.shape[axis] == 1), None)  # noqa: PLR2004 - N, C, h, w
    cells = ids if channel is None else ids.squeeze(channel)
    if cells.ndim != 3 or cells.shape[0] != 1:  # noqa: PLR2004 - N, h, w
        raise LabellingError(f"gave {list(ids.shape)}; wanted one class id a cell, [1, h, w]")
    if not 0 <= cells.min() <= cells.max() < len(columns):
        raise LabellingError(
            f"gave ids from {cells.min()} to {cells.max()}; wanted 0 to {len(columns) - 1}, a name each"
        )
    places = (columns + 1).astype(np.uint8)[cells[0].astype(np.int64)]
    rows, across = _nearest(placement.y, places.shape[0]), _nearest(placement.x, places.shape[1])
    found = places[rows][:, across]
    return MaskAnswer(found, np.full_like(found, 255))


def decode_boxes(outputs: Outputs, output: BoxLists, columns: Columns, placement: Placement) -> BoxAnswer:
    """Lists of boxes to objects in the picture, the best first.

    Raises:
        LabellingError: other shapes, or labels that no name stands for.
    """
    boxes, scores = outputs[output.boxes], outputs[output.scores]
    labels = outputs[output.labels] if output.labels else None
    if boxes.ndim == 3:  # noqa: PLR2004 - N, K, 4
        boxes, scores, labels = boxes[0], scores[0], None if labels is None else labels[0]
    scores = _require_shares(_activate(scores.astype(np.float64), output.activation, axis=-1))
    wanted = (len(boxes),) if labels is not None else (len(boxes), len(columns))
    if boxes.shape[1:] != (4,) or scores.shape != wanted or (labels is not None and labels.shape != wanted):
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
        wish = "a score and a label a box" if labels is not None else f"{len(columns)} scores a box, one for each name"
        raise LabellingError(f"gave {shapes}; wanted [N, K, 4] boxes, and {wish}")
    if labels is None:
        known = np.where(columns >= 0, scores, -1.0)  # background wins nothing
        labels = known.argmax(axis=1)
        scores = np.take_along_axis(known, labels[:, None], axis=1)[:, 0]
    labels = labels.astype(np.int64)
    counted = labels[scores >= LEAST_SCORE]  # fillers at the end may have any label
    if len(counted) and not 0 <= counted.min() <= counted.max() < len(columns):
        raise LabellingError(
            f"gave labels from {counted.min()} to {counted.max()}; wanted 0 to {len(columns) - 1}, a name each"
        )
    xyxy = _to_corners(boxes.astype(np.float64), output.format)
    if output.unit != "original":
        if output.unit == "share":
            xyxy *= [placement.x.canvas, placement.y.canvas] * 2
        xyxy = _to_picture(xyxy, placement)
    return _choose(xyxy, scores, columns[labels.clip(0, len(columns) - 1)], placement, output.iou_threshold)


def decode_yolox(grid: NDArray[Any], output: Yolox, columns: Columns, placement: Placement) -> BoxAnswer:
    """Grids of YOLOX to objects in the picture: centres count from their cell, sizes are exponents, both in strides.

    Raises:
        LabellingError: another shape.
    """
    size = placement.y.canvas, placement.x.canvas
    corners, strides = zip(*(_cells(size, stride) for stride in output.strides), strict=True)
    cells, stride = np.concatenate(corners), np.concatenate(strides)[:, None]
    if grid.shape != (1, len(cells), 5 + len(columns)):
        raise LabellingError(
            f"gave {list(grid.shape)}; wanted [1, {len(cells)}, {5 + len(columns)}]: box, objectness and "
            f"{len(columns)} classes at strides {', '.join(map(str, output.strides))}"
        )
    values = grid[0].astype(np.float64)
    scores = _require_shares(_activate(values[:, 4:], output.activation))
    scores = np.where(columns >= 0, scores[:, :1] * scores[:, 1:], -1.0)
    labels = scores.argmax(axis=1)
    best = np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
    # The exponent of a cell that sees nothing may be anything.
    sides = np.exp(values[:, 2:4].clip(max=20)) * stride
    xyxy = _to_corners(np.hstack([(values[:, :2] + cells) * stride, sides]), "cxcywh")
    return _choose(_to_picture(xyxy, placement), best, columns[labels], placement, output.iou_threshold)


def _activate(values: NDArray[Any], activation: str, axis: int = 0) -> NDArray[Any]:
    if activation == "sigmoid":
        return 0.5 * (1 + np.tanh(0.5 * values))  # never overflows
    if activation == "softmax":
        powers = np.exp(values - values.max(axis=axis, keepdims=True))
        shares: NDArray[Any] = powers / powers.sum(axis=axis, keepdims=True)
        return shares
    return values


def _require_shares(probs: NDArray[Any]) -> NDArray[Any]:
    """What may be off 0..1 by rounding alone, clipped to it."""
    low, high = probs.min(initial=0), probs.max(initial=0)
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # nan is neither
        raise LabellingError(f"gave scores from {low:g} to {high:g}; wanted 0 to 1: is [output] activation right?")
    return probs.clip(0, 1)


def _nearest(span: Span, cells: int) -> NDArray[np.intp]:
    centres = (np.arange(span.length) + 0.5) * (span.resized / span.length) + span.offset
    return (centres * cells / span.canvas).astype(np.intp).clip(0, cells - 1)


def _cells(size: tuple[int, int], stride: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows, columns = np.mgrid[: size[0] // stride, : size[1] // stride].reshape(2, -1).astype(np.float64)
    return np.stack([columns, rows], axis=1), np.full(len(rows), float(stride))


def _to_corners(boxes: NDArray[np.float64], form: str) -> NDArray[np.float64]:
    if form == "xyxy":
        return boxes
    first, sides = boxes[:, :2], boxes[:, 2:]
    begin = first if form == "xywh" else first - sides / 2
    return np.hstack([begin, begin + sides])


def _to_picture(boxes: NDArray[np.float64], placement: Placement) -> NDArray[np.float64]:
    offset = np.array([placement.x.offset, placement.y.offset] * 2)
    inner: NDArray[np.float64] = (boxes - offset) / np.array([placement.x.scale, placement.y.scale] * 2)
    return inner


def _choose(
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    placement: Placement,
    iou_threshold: float | None,
) -> BoxAnswer:
    """The best boxes that are finite, lie in the picture, and are of a class."""
    boxes = boxes.clip(0, [placement.x.length, placement.y.length] * 2).round(2)
    is_box = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & (scores >= LEAST_SCORE) & (labels >= 0)
    kept = np.flatnonzero(is_box)
    kept = kept[np.argsort(-scores[kept], kind="stable")][:_MOST_CANDIDATES]
    parts: Sequence[NDArray[Any]] = boxes[kept], scores[kept].round(5), labels[kept]
    if iou_threshold is not None:
        stays = suppress(parts[0], parts[1], parts[2], iou_threshold)
        parts = [part[stays] for part in parts]
    first, second, third = (part[:MOST_BOXES] for part in parts)
    return BoxAnswer(first.astype(np.float32), second.astype(np.float32), third)
