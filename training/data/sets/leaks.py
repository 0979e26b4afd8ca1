"""Pictures of train that are also measured: by their bytes, or by a name that is a picture's own."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

# Where more of the measured pictures have a name that train has too, names only count pictures (1.jpg, 2.jpg ...).
_MOST_SHARED = 0.5
# A name with so many digits is an id wherever it lies: 000000323751 of COCO, 2007_000032 of VOC.
_DIGITS_OF_AN_ID = 10


def find_same_names(train: Sequence[Path], measured: Sequence[Path]) -> set[Path]:
    """The pictures of one source's train whose name one of its measured pictures has."""
    stems = {path.stem for path in measured}
    shared = stems & {path.stem for path in train}
    return {path for path in train if path.stem in shared} if len(shared) <= _MOST_SHARED * len(stems) else set()


def find_leaks(train: Sequence[Path], measured: Sequence[Path]) -> set[Path]:
    """The pictures of all train that are measured too, by bytes or by an id; only files of one length are read."""
    by_length: dict[int, list[Path]] = defaultdict(list)
    for path in measured:
        by_length[path.stat().st_size].append(path)
    suspects = [path for path in train if path.stat().st_size in by_length]
    lengths = {path.stat().st_size for path in suspects}
    digests = {_digest(path) for length in lengths for path in by_length[length]}
    leaked = {path for path in suspects if _digest(path) in digests}
    ids = {path.stem for path in measured if sum(map(str.isdigit, path.stem)) >= _DIGITS_OF_AN_ID}
    return leaked | {path for path in train if path.stem in ids}


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
