"""COCO run lengths of a mask: column by column, as pycocotools reads them (cocodataset/cocoapi, common/maskApi.c)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.pictures.imaging import UInt8Array

_BITS, _MORE, _SIGN, _FIRST_CHARACTER = 5, 0x20, 0x10, 48
# Seven groups of five bits hold any number of pixels that a picture can have.
_SHIFTS = np.arange(0, 7 * _BITS, _BITS)


def encode_rle(class_ids: UInt8Array) -> dict[int, str]:
    """Write the mask of each class that occurs as a compressed COCO string.

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
