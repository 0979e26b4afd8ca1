"""The same picture in two places where it must not be: by its bytes, by its name, by its look."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np

from service.pictures.imaging import UInt8Array
from training.data.doctor.codes import Ledger

# dHash compares each grey value with its right neighbour: 8 rows of 9 values make 64 bits
# (hackerfactor.com, "Kind of Like That", 2013).
THUMBNAIL_WIDTH: Final = 9
THUMBNAIL_HEIGHT: Final = 8
MAX_HAMMING: Final = 4
# A hash of little contrast is a hash of noise: below this standard deviation a picture has no look of its own.
MIN_SPREAD: Final = 5.0
# Two pictures of one thing on a plain ground may share 60 of 64 bits; copies share their grey values too. Over 900
# pictures of the mini sets, a copy at two thirds the size and JPEG quality 30 is off by 1.0 level in the mean at most
# and by 4 bits in 98 of 100; the strangers with the nearest hashes, 7 and 8 bits off, by 18 levels at least.
MAX_MEAN_DIFFERENCE: Final = 6.0
# Distances held at a time: the full releases have 118,000 by 5,000 pairs.
_PAIRS_AT_ONCE: Final = 1 << 24


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One decoded picture in its place.

    Attributes:
        path: the picture's file.
        set_root: the folder of its data set.
        split: name of its split.
        sha256: hex digest of the file.
        thumbnail: [8, 9] grey, 0..255.
    """

    path: Path
    set_root: Path
    split: str
    sha256: str
    thumbnail: UInt8Array


def report_overlaps(seen: Sequence[Seen], ledger: Ledger) -> None:
    """Write a case for each pair of pictures, in two splits or two sets, with the same bytes, name or look."""
    places: dict[tuple[Path, str], list[Seen]] = defaultdict(list)
    for each in seen:
        places[each.set_root, each.split].append(each)
    for first, second in combinations(places.values(), 2):
        _report_pair(first, second, ledger)


def difference_hash(thumbnail: UInt8Array) -> int:
    """64 bits, row by row: is a grey value less than its right neighbour."""
    bits = thumbnail[:, :-1] < thumbnail[:, 1:]
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _report_pair(first: Sequence[Seen], second: Sequence[Seen], ledger: Ledger) -> None:
    same_set = first[0].set_root == second[0].set_root
    for one, other in _pairs_by(lambda each: each.sha256, first, second):
        code = "same-picture-in-two-splits" if same_set else "same-picture-in-two-tasks"
        ledger.add(code, one.path, f"is also {ledger.place(other.path)}; wanted in one of them only")
    if same_set:
        for one, other in _pairs_by(lambda each: each.path.stem, first, second):
            if one.sha256 != other.sha256:
                ledger.add("same-name-in-two-splits", one.path, f"has the name of {ledger.place(other.path)}")
    for one, other, distance in _look_alikes(first, second):
        if one.sha256 != other.sha256:
            sentence = f"looks like {ledger.place(other.path)}: {distance} of 64 bits differ"
            ledger.add("near-duplicate", one.path, sentence)


def _pairs_by(key: Callable[[Seen], str], first: Sequence[Seen], second: Sequence[Seen]) -> Iterator[tuple[Seen, Seen]]:
    others = {key(each): each for each in second}
    return ((each, others[key(each)]) for each in first if key(each) in others)


def _look_alikes(first: Sequence[Seen], second: Sequence[Seen]) -> Iterator[tuple[Seen, Seen, int]]:
    """Pairs whose hashes are near and whose grey values are too, with their Hamming distance."""
    ones, others = _with_a_look(first), _with_a_look(second)
    hashes = np.array([difference_hash(each.thumbnail) for each in others], dtype=np.uint64)
    own = np.array([difference_hash(each.thumbnail) for each in ones], dtype=np.uint64)
    rows = max(1, _PAIRS_AT_ONCE // max(1, len(others)))
    for start in range(0, len(ones), rows):
        distances = np.bitwise_count(own[start : start + rows, None] ^ hashes)
        for row, column in np.argwhere(distances <= MAX_HAMMING).tolist():
            one, other = ones[start + row], others[column]
            if _mean_difference(one.thumbnail, other.thumbnail) <= MAX_MEAN_DIFFERENCE:
                yield one, other, int(distances[row, column])


def _with_a_look(seen: Sequence[Seen]) -> list[Seen]:
    return [each for each in seen if each.thumbnail.std() >= MIN_SPREAD]


def _mean_difference(one: UInt8Array, other: UInt8Array) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())
