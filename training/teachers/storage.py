"""Arrays that take long to compute, kept in one file that is never half written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.data.feed.dataset import TaskDataset
from training.data.transforms import Boxes
from training.files import open_whole

Float16Array: TypeAlias = NDArray[np.float16]


def load_or_compute(
    folder: Path | None, key: str, compute: Callable[[], Sequence[Float16Array]]
) -> tuple[Float16Array, ...]:
    """Read `<folder>/<key>.npz`, or compute the arrays and write them there; without a folder nothing is kept.

    Args:
        folder: made if it does not exist.
        key: names everything that the arrays depend on; fit for a file's name.
        compute: the arrays, of any shapes, in an order that counts.
    """
    if folder is None:
        return tuple(compute())
    path = folder / f"{key}.npz"
    if path.is_file():
        with np.load(path) as kept:
            return tuple(kept[f"arr_{index}"] for index in range(len(kept.files)))
    arrays = tuple(compute())
    folder.mkdir(parents=True, exist_ok=True)
    # Two runs may be at it at the same time, each with a file of its own; both rename the same bytes into place.
    with open_whole(path, suffix=f".{os.getpid()}.tmp") as file:
        np.savez(file, *arrays)
    return arrays


def compute_key(dataset: TaskDataset, *words: str) -> str:
    """Hash all pixels of a dataset, its boxes if it has any, and what else counts: 64 hex digits."""
    digest = hashlib.sha256("|".join(words).encode())
    for index in range(len(dataset)):
        image, target = dataset.load(index)
        digest.update(f"|{image.shape}".encode())
        digest.update(image.tobytes())
        if isinstance(target, Boxes):
            digest.update(target.boxes.tobytes())
    return digest.hexdigest()
