"""Arrays that take long to compute, kept on disk in pieces: mapped, not read, and never half written."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.pictures.resizing import RESIZER
from training.data.feed.dataset import TaskDataset
from training.files import open_whole

Float16Array: TypeAlias = NDArray[np.float16]

ANSWERS_NAME: Final = "answers"  # the folder, in that of all caches
PIECE: Final = 512
# Of what other runs have asked; that of 7,200 pictures by a teacher of masks of 64 x 64 cells takes 1.2 GiB.
MOST_BYTES: Final = 16 * 2**30
# What turns a file into what a teacher sees.
_DECODERS: Final = tuple(dict.fromkeys(("simplejpeg", "pillow", RESIZER)))


def load_or_compute(
    folder: Path | None,
    key: str,
    count: int,
    compute: Callable[[int, int], Sequence[Float16Array]],
    *,
    most_bytes: int = MOST_BYTES,
) -> list[Float16Array]:
    """Map the arrays that `<folder>/<key>` has, compute the others piece by piece, and keep them there.

    A run that is killed in between goes on with the piece that it was at. Where nothing can be written, arrays are
    kept in memory.

    Args:
        folder: made if it does not exist; None keeps all in memory.
        key: names everything that the arrays depend on; fit for a folder's name.
        count: of the arrays.
        compute: the arrays from one number to before another, of any shapes.
        most_bytes: what lies in the folder under other keys; beyond, what was used longest ago is removed.
    """
    arrays: list[Float16Array] = []
    place = None if folder is None else folder / key
    if folder is not None and place is not None:
        with contextlib.suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            os.utime(place)
            _remove_oldest(folder, key, most_bytes)
    for start in range(0, count, PIECE):
        end = min(start + PIECE, count)
        piece = None if place is None else _map_piece(place, start, end - start)
        if piece is None:
            piece = list(compute(start, end))
            if place is not None:
                with contextlib.suppress(OSError):
                    _write_piece(place, start, piece)
                    piece = _map_piece(place, start, end - start) or piece
        arrays += piece
    return arrays


def compute_key(dataset: TaskDataset, *words: str) -> str:
    """Hash all pictures of a dataset, what decodes them, and what else counts: 64 hex digits."""
    versions = (f"{name} {metadata.version(name)}" for name in _DECODERS)
    digest = hashlib.sha256("|".join((*words, *versions)).encode())
    for one in dataset.load_digests():
        digest.update(one)
    return digest.hexdigest()


def _map_piece(place: Path, start: int, count: int) -> list[Float16Array] | None:
    """The arrays of one piece, which the system reads when they are looked at; None if there is no such piece."""
    try:
        shapes = np.load(place / f"{start}.shapes.npy")
        values = np.load(place / f"{start}.npy", mmap_mode="r")
        ends = shapes.prod(axis=1).cumsum()
    except (OSError, ValueError, EOFError):
        return None
    if len(shapes) != count or values.dtype != np.float16 or values.shape != (ends[-1],):
        return None
    parts = np.split(np.asarray(values), ends[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes.tolist(), strict=True)]


def _write_piece(place: Path, start: int, arrays: Sequence[Float16Array]) -> None:
    # Two runs may be at it at the same time, each with files of its own; both rename the same bytes into place.
    suffix = f".{os.getpid()}.tmp"
    with open_whole(place / f"{start}.shapes.npy", suffix=suffix) as file:
        np.save(file, np.array([array.shape for array in arrays], dtype=np.int64))
    with open_whole(place / f"{start}.npy", suffix=suffix) as file:
        np.save(file, np.concatenate([array.ravel() for array in arrays]))


def _remove_oldest(folder: Path, key: str, most_bytes: int) -> None:
    others = sorted((path for path in folder.iterdir() if path.name != key), key=lambda path: -path.stat().st_mtime_ns)
    total = 0
    for path in others:
        total += sum(file.stat().st_size for file in path.iterdir())
        if total > most_bytes:
            shutil.rmtree(path, ignore_errors=True)  # a run that has mapped it keeps it
