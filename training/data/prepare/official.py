"""What the three official releases have in common: pictures that show classes, in two splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Protocol

from training.config import Task
from training.data.prepare.sources import Files

SPLITS: Final = ("train", "val")


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height; in pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a release.

    Attributes:
        source: its official path.
        classes: what it can be drawn for, in the order of the set's classes; none for a picture only --all keeps.
        annotated_size: the size its annotation was made for; None if it has none that depends on the size.
    """

    source: str
    classes: tuple[str, ...]
    annotated_size: Size | None = None

    @property
    def id(self) -> str:
        """File name without its ending."""
        return PurePosixPath(self.source).stem

    @property
    def name(self) -> str:
        """File name."""
        return PurePosixPath(self.source).name


class OfficialSet(Protocol):
    """One release, and how the set made out of it looks; most have no files beside the pictures."""

    task: Task
    folder: str  # name of the set
    classes: tuple[str, ...]  # the same for both splits
    files: Files

    def list_pictures(self, split: str) -> Sequence[Picture]:
        """All pictures of an official split, sorted by id."""
        ...

    def place(self, picture: Picture) -> str:
        """Path of the picture in its split folder."""
        ...

    def make_companions(self, picture: Picture, size: Size) -> Mapping[str, bytes]:
        """Files that lie beside a picture that now has this size, by path in the split folder."""
        del picture, size
        return {}

    def make_annotations(self, split: str, sizes: Mapping[Picture, Size]) -> Mapping[str, bytes]:
        """Files about all pictures of a split, which now have these sizes, by path in the split folder."""
        del split, sizes
        return {}
