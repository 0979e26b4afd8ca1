"""Decoded pictures in memory: one budget for all tasks of a run. What is kept never changes what is learned."""

from __future__ import annotations

import threading
from typing import TypeAlias

import numpy as np

from service.pictures.imaging import UInt8Array
from training.data.transforms import Target

Picture: TypeAlias = tuple[UInt8Array, Target]


class PictureCache:
    """The memory that all data sets of a run share; whoever comes first fills it.

    A picture is never displaced by another of its own set: an epoch shows each once, so that the one displaced would be
    missed as soon as the one that took its place. What nobody has asked for, as long as going round a set takes, makes
    room for that set: the pictures of a task whose stage is over.
    """

    def __init__(self, mib: int) -> None:
        """Begin with nothing; keep up to `mib` MiB."""
        self._free_bytes = self._all_bytes = mib * 2**20
        self._parts: list[CachePart] = []
        self._loads = 0
        self._lock = threading.Lock()

    def open_part(self, pictures: int) -> CachePart:
        """Give a data set of so many pictures its part, which has no size of its own."""
        part = CachePart(self, pictures)
        self._parts.append(part)
        return part

    def tick(self) -> int:
        """Count one more picture that was asked for."""
        self._loads += 1  # two threads may count one together: it is a clock, and need not be exact
        return self._loads

    def keep(self, part: CachePart, index: int, picture: Picture) -> None:
        """Keep a picture if there is room for it, or what is idle makes some."""
        size = _count_bytes(picture)
        with self._lock:
            if index in part.kept or size > self._all_bytes:
                return
            while size > self._free_bytes:
                idle = next((other for other in self._parts if other.kept and self._is_idle(other, part)), None)
                if idle is None:
                    return
                self._free_bytes += _count_bytes(idle.kept.popitem()[1])
            self._free_bytes -= size
            part.kept[index] = picture

    def _is_idle(self, other: CachePart, asking: CachePart) -> bool:
        return other is not asking and self._loads - other.asked > asking.pictures


class CachePart:
    """What is kept of one data set.

    Attributes:
        pictures: of the set, kept or not.
        kept: by index.
        asked: when one of them was last asked for, in pictures asked for of all sets.
    """

    def __init__(self, cache: PictureCache, pictures: int) -> None:
        self.pictures = pictures
        self.kept: dict[int, Picture] = {}
        self.asked = 0
        self._cache = cache

    def get(self, index: int) -> Picture | None:
        """The picture, if it is kept."""
        self.asked = self._cache.tick()
        return self.kept.get(index)

    def keep(self, index: int, picture: Picture) -> None:
        """Keep a picture if there is room."""
        self._cache.keep(self, index, picture)


def _count_bytes(picture: Picture) -> int:
    image, target = picture
    return image.nbytes + (target.nbytes if isinstance(target, np.ndarray) else 0)
