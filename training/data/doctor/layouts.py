"""Which data sets lie below a folder, or are named by a data file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.data.layouts.readings import FoundSet
from training.data.sets.data_file import DataFile, Source
from training.data.sets.opening import choose_places, locate
from training.data.sources import find_sources


class LayoutError(ValueError):
    """No data set was found where one was wanted; the sentence shows the layouts."""


@dataclass(frozen=True, slots=True)
class ExaminedSet:
    """One set to examine.

    Attributes:
        source: what the data file, or the guess of the folder, says of it.
        data: the data file that it stands in.
        path: its folder, or its annotation file.
        found: its layout, and the splits that exist; a missing one is for the checks to tell.
    """

    source: Source
    data: DataFile
    path: Path
    found: FoundSet

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.path.stem if self.path.is_file() else self.path.resolve().name


def find_sets(path: Path, root: Path | None = None) -> tuple[ExaminedSet, ...]:
    """Find the sets of a data file, of a folder that is one, or of the folders in it; sorted by name.

    Raises:
        LayoutError: there is no such folder or file, or nothing in it is a data set.
    """
    try:
        data, roots = find_sources(path, root)
        sets = []
        for source in data.source:
            place, found = locate(source, roots)
            places = choose_places(source, found, place)
            sets.append(ExaminedSet(source, data, place, FoundSet(found.layout, found.root, places)))
    except ValueError as error:
        raise LayoutError(str(error)) from error
    return tuple(sorted(sets, key=lambda each: each.name))
