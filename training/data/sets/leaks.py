"""Pictures of train that are also measured: by their bytes, or by a name that is a picture's own."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

# Where more of the measured pictures have a name that train has too, names only count pictures (1.jpg, 2.jpg ...).
_MOST_SHARED = 0.5


def find_leaks(train: Sequence[Path], measured: Sequence[Path]) -> set[Path]:
    """The pictures of train that are measured too; only files of one length are read and compared."""
    by_length: dict[int, list[Path]] = defaultdict(list)
    for path in measured:
        by_length[path.stat().st_size].append(path)
    suspects = [path for path in train if path.stat().st_size in by_length]
    lengths = {path.stat().st_size for path in suspects}
    digests = {_digest(path) for length in lengths for path in by_length[length]}
    leaked = {path for path in suspects if _digest(path) in digests}
    stems = {path.stem for path in measured}
    shared = stems & {path.stem for path in train}
    if len(shared) <= _MOST_SHARED * len(stems):
        leaked |= {path for path in train if path.stem in shared}
    return leaked


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
