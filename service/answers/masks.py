"""The forms that a mask may take in an answer."""

from __future__ import annotations

import base64
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.answers import render
from service.answers.polygons import find_polygons
from service.answers.schemas import Mask, PngMask, PolygonMask, PolygonSegment, RawMask, RleMask, RleSegment
from service.engine.postprocess import Answer
from service.pictures.imaging import UInt8Array
from service.telemetry.timing import Stopwatch

MaskFormat: TypeAlias = Literal["png", "rle", "polygons", "raw", "none"]

_BITS, _MORE, _SIGN, _FIRST_CHARACTER = 5, 0x20, 0x10, 48
# Seven groups of five bits hold any number of pixels that a picture can have.
_SHIFTS = np.arange(0, 7 * _BITS, _BITS)


def write_mask(answer: Answer, watch: Stopwatch, form: MaskFormat) -> Mask | None:
    """Bring the mask to the original's size and write it; laps `postprocess` and `encode`.

    Args:
        answer: of the forward pass.
        watch: of the request.
        form: that is asked for; with "none" nothing is computed.
    """
    if form == "none":
        return None
    place, stride = answer.place, answer.contract.mask_stride
    size = place.height, place.width
    mask: Mask
    if form == "polygons":
        found = find_polygons(answer.prediction.mask, *place.cells_of_pixels(stride))
        watch.lap("postprocess")
        segments = [
            PolygonSegment(label_id=class_id, polygons=[polygon.rings() for polygon in polygons])
            for class_id, polygons in found.items()
        ]
        mask = PolygonMask(size=size, segments=segments)
    else:
        class_ids = answer.mask()
        watch.lap("postprocess")
        if form == "png":
            mask = PngMask.of(render.encode_mask(class_ids))
        elif form == "rle":
            runs = encode_rle(class_ids)
            mask = RleMask(size=size, segments=[RleSegment(label_id=one, counts=runs[one]) for one in runs])
        else:
            mask = RawMask(size=size, data=base64.b64encode(class_ids.tobytes()).decode("ascii"))
    watch.lap("encode")
    return mask


def encode_rle(class_ids: UInt8Array) -> dict[int, str]:
    """Write the mask of each class that occurs as COCO's run lengths: column by column, as pycocotools reads them.

    The format is that of cocodataset/cocoapi, common/maskApi.c.

    Args:
        class_ids: [H, W].

    Returns:
        The string of each class id, lowest id first; `size` of a COCO RLE is [H, W].
    """
    flat = class_ids.ravel(order="F")
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    values = flat[starts]
    ends = np.append(starts[1:], len(flat))
    return {
        class_id: compress_counts(_count(starts[values == class_id], ends[values == class_id], len(flat)))
        for class_id in np.unique(values).tolist()
    }


def _count(starts: NDArray[np.intp], ends: NDArray[np.intp], total: int) -> NDArray[np.int64]:
    """Lengths of the runs outside and inside, in turns, that of the outside first; [2 runs (+ 1)]."""
    borders = np.stack([starts, ends], axis=1).ravel()
    counts = np.diff(borders, prepend=0).astype(np.int64)
    rest = total - borders[-1]
    return np.append(counts, rest) if rest else counts


def compress_counts(counts: NDArray[np.int64]) -> str:
    """Write run lengths as text: from the fourth on as the difference to the one before the last, 5 bits a character.

    Args:
        counts: [R] lengths, >= 0.
    """
    differences = counts.copy()
    differences[3:] -= counts[1:-2]
    shifted = differences[:, None] >> _SHIFTS
    groups = shifted & (_MORE - 1)
    # A group is the last one where what is left of the number repeats its sign bit.
    more = (differences[:, None] >> (_SHIFTS + _BITS)) != -((groups & _SIGN) // _SIGN)
    written = np.ones_like(more)
    written[:, 1:] = np.logical_and.accumulate(more, axis=1)[:, :-1]
    characters = (groups + more * _MORE + _FIRST_CHARACTER).astype(np.uint8)
    text: bytes = characters[written].tobytes()
    return text.decode("ascii")


def measure_counts(counts: str, height: int) -> tuple[int, tuple[int, int, int, int]]:
    """Measure a mask that is written as run lengths, without unfolding it.

    Args:
        counts: as `encode_rle` writes it.
        height: of the mask.

    Returns:
        Its pixels, and the box around them: x, y, width, height; all 0 where there are none.
    """
    lengths = read_counts(counts)
    ends = lengths.cumsum()[1::2]
    inside = lengths[1::2]
    if not inside.sum():
        return 0, (0, 0, 0, 0)
    starts, ends = (ends - inside)[inside > 0], ends[inside > 0] - 1
    left, right = int(starts[0] // height), int(ends[-1] // height)
    # A run that goes on in the next column reaches the bottom of one and the top of the other.
    wraps = bool((starts // height != ends // height).any())
    top = 0 if wraps else int((starts % height).min())
    bottom = height - 1 if wraps else int((ends % height).max())
    return int(inside.sum()), (left, top, right - left + 1, bottom - top + 1)


def read_counts(text: str) -> NDArray[np.int64]:
    """Read the run lengths [R] that `compress_counts` has written."""
    lengths: list[int] = []
    value = place = 0
    for character in text.encode("ascii"):
        code = character - _FIRST_CHARACTER
        value |= (code & (_MORE - 1)) << place
        place += _BITS
        if code & _MORE:
            continue
        if code & _SIGN:
            value -= 1 << place
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))  # noqa: PLR2004 - see compress_counts
        value = place = 0
    return np.array(lengths, dtype=np.int64)
