"""Each source of a data file, found on disk and read, with its names as the model will have them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from service.machine import available_cpus
from training.data.layouts.faults import DataError, Faults
from training.data.layouts.masks import read_values
from training.data.layouts.readings import FoundSet, Labelled, Layout, Place, Reading
from training.data.sets.data_file import BACKGROUND, VOID_NAME, DataFile, Source
from training.data.sets.guess import READERS, WANTED, find_set
from training.data.taxonomy import IMAGENETTE, VOC, VOC_SAME_AS_COCO, VOID
from training.options.base import Task

# Layouts whose labels are numbers; the others bring names.
_NUMBERED: Final = frozenset({Layout.MASKS, Layout.VOC_MASKS, Layout.YOLO})
# Masks that count up to here count classes; beyond, their values mean something else, and must be named.
_MOST_UNNAMED: Final = 64


@dataclass(frozen=True, slots=True)
class Opened:
    """One source as it lies on disk.

    Attributes:
        source: as the data file has it.
        place: what to call it in sentences: its path.
        found: its set.
        readings: by split: train, val, choose; and test, which is looked at by nobody. Their names are those that the
            model has for them: aliases are followed.
        told: what a person should know about it.
    """

    source: Source
    place: Path
    found: FoundSet
    readings: Mapping[str, Reading]
    told: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of every split, in the order of the first that has it."""
        every = (name for reading in self.readings.values() for name in reading.names)
        return tuple(dict.fromkeys(name for name in every if name is not None))


def open_source(source: Source, data: DataFile, roots: Sequence[Path], faults: Faults) -> Opened:
    """Find a source below one of the roots and read it.

    Raises:
        DataError: it is not there, is in no known layout, or has a fault that cannot be mended.
    """
    path, found = locate(source, roots)
    readings = {
        split: READERS[found.layout](place, faults) for split, place in choose_places(source, found, path).items()
    }
    if source.hold_out:
        readings = _hold_out(readings, source, path)
    names, told = name_numbers(source, data, path, found.layout, readings)
    own = {name for reading in readings.values() for name in names or reading.names}
    if strange := [name for name in source.aliases if name not in own]:
        raise DataError(
            f"{path}: aliases has {strange[0]!r}, which is no class there; it has {_list(sorted(map(str, own)))}"
        )
    readings = {
        split: rename(source, reading, names, data.classes.names(source.task)) for split, reading in readings.items()
    }
    return Opened(source, path, found, readings, told)


def locate(source: Source, roots: Sequence[Path]) -> tuple[Path, FoundSet]:
    """Where a source lies, and the set that is there.

    Raises:
        DataError: there is none.
    """
    path = next((root / source.path for root in roots if (root / source.path).exists()), None)
    if path is None:
        places = " or ".join(str(root) for root in roots)
        raise DataError(f"{source.path}: not below {places}; give the folder as --root, or as UNIHEAD_DATA")
    if path.is_file():
        layout = source.layout or (Layout.COCO_MASKS if source.task is Task.SEGMENTATION else Layout.COCO)
        folders = [path.parent / "data", path.parent / "images", path.parent]
        place = Place(path.parent, tuple(folder for folder in folders if folder.is_dir()), path)
        return path, FoundSet(layout, path.parent, {"all": place})
    found = find_set(path, source.layout, source.task)
    if found is None:
        what = f"in the layout {source.layout.value!r}" if source.layout else f"for {source.task}"
        raise DataError(f"{path}: is no set {what}; wanted {WANTED}")
    return path, found


def choose_places(source: Source, found: FoundSet, path: Path) -> dict[str, Place]:
    """What is read as which split: the set's own ones, or what the data file says.

    Raises:
        DataError: the set lacks the split that is asked for, or is not split at all.
    """
    places = dict(found.places)
    if source.split is not None:
        if source.split in places:
            return {source.split: places[source.split]}
        if "all" in places:
            return {source.split: places["all"]}
        raise DataError(
            f"{path}: has no split {source.split!r}, only {', '.join(places)}; name one of them in `path`, or leave "
            "`split` out"
        )
    if "all" in places:
        raise DataError(f'{path}: is not split; write split = "train" and hold_out = 0.1, or split = "val"')
    if "val" not in places and "test" in places:
        places["val"] = places.pop("test")
    return places


def _hold_out(readings: dict[str, Reading], source: Source, path: Path) -> dict[str, Reading]:
    """Move a share of train to val: of each class its share, chosen by the pictures' names alone."""
    train = readings.get("train")
    if train is None or "val" in readings:
        lacking = "has no train to hold anything out of" if train is None else "has a val of its own"
        raise DataError(f"{path}: {lacking}; take hold_out out")
    groups: dict[int | None, list[Labelled]] = {}
    for picture in train.pictures:
        groups.setdefault(picture.label, []).append(picture)
    held: set[Path] = set()
    for group in groups.values():
        # A digest of the name, so that pictures that are added later leave the others where they are.
        order = sorted(
            group, key=lambda each: hashlib.sha256(os.fsencode(each.image.relative_to(path.parent))).digest()
        )
        held |= {picture.image for picture in order[: max(1, round(len(group) * source.hold_out))]}
    kept = tuple(picture for picture in train.pictures if picture.image not in held)
    if not kept:
        raise DataError(f"{path}: holds {len(train.pictures)} pictures; wanted 2 of each class at least, to hold 1 out")
    chosen = tuple(picture for picture in train.pictures if picture.image in held)
    return {**readings, "train": replace(train, pictures=kept), "val": replace(train, pictures=chosen)}


def name_numbers(
    source: Source, data: DataFile, path: Path, layout: Layout, readings: Mapping[str, Reading]
) -> tuple[tuple[str | None, ...], tuple[str, ...]]:
    """Names for labels that are mere numbers on disk, none where the data names them; and what is to be told of it.

    Raises:
        DataError: nothing names mask values that cannot be counted, or names are given to what has its own.
    """
    if source.values:
        return tuple(source.values.get(value) for value in range(max(source.values) + 1)), ()
    own = next((reading.names for reading in readings.values() if reading.names), ())
    if source.names:
        if layout not in _NUMBERED:
            raise DataError(f"{path}: names its classes itself: {_list(own)}; write `aliases` in place of `names`")
        return source.names, ()
    if own or layout not in {Layout.MASKS, Layout.VOC_MASKS}:
        return (), ()
    if names := data.classes.names(Task.SEGMENTATION) or (VOC if layout is Layout.VOC_MASKS else ()):
        return names, ()
    values = find_values(readings)
    told = f"{path}: nothing names the values {_list(values)}; write classes.txt there, or `names` into a data file"
    return _name_values(path, values), (told,)


def rename(source: Source, reading: Reading, names: Sequence[str | None], listed: Sequence[str]) -> Reading:
    """The same pictures, with the names that the model has for their labels.

    Args:
        source: knows aliases, and what becomes of other classes.
        reading: with names of its own.
        names: in place of those, where labels are mere numbers.
        listed: all names that the model has; empty if the sources decide.
    """
    own = names or reading.names
    if own and ({*own} <= IMAGENETTE.keys() or set(IMAGENETTE.values()) <= {*listed}):
        own = [IMAGENETTE.get(str(name), name) for name in own]
    return replace(reading, names=tuple(None if name is None else _translate(name, source, listed) for name in own))


def _translate(name: str, source: Source, listed: Sequence[str]) -> str:
    name = source.aliases.get(name, name)
    if not listed or name in {*listed, VOID_NAME, BACKGROUND}:
        return name
    twins = {one: other for pair in VOC_SAME_AS_COCO for one, other in (pair, pair[::-1])}
    if (twin := twins.get(name)) in listed:
        return str(twin)
    return name if source.others is None else VOID_NAME if source.others == "void" else BACKGROUND


def find_values(readings: Mapping[str, Reading]) -> list[int]:
    """Every value that the masks of a source hold."""
    paths = [
        picture.mask for reading in readings.values() for picture in reading.pictures if isinstance(picture.mask, Path)
    ]
    seen = np.zeros(256, dtype=np.bool_)
    with ThreadPoolExecutor(max_workers=available_cpus()) as pool:
        for occurring in pool.map(_occurring, paths):
            seen |= occurring
    return [int(value) for value in np.flatnonzero(seen)]


def _occurring(path: Path) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    try:
        return np.bincount(read_values(path).ravel(), minlength=256) > 0
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def propose_values(values: Sequence[int]) -> dict[int, str]:
    """A `values` line for masks that nothing names, to be edited; 255 is void where other values are classes."""
    others = [value for value in values if value not in {0, VOID}]
    proposed = {0: BACKGROUND} if 0 in values else {}
    proposed |= {value: f"class {number}" for number, value in enumerate(others, start=1)}
    if VOID in values:
        proposed[VOID] = VOID_NAME if others else "foreground"
    return proposed


def _name_values(path: Path, values: Sequence[int]) -> tuple[str, ...]:
    """Names for values that count classes: background, class 1, class 2 ...

    Raises:
        DataError: they do not count, so that nobody can know what is void and what a class.
    """
    classes = [value for value in values if value != VOID]
    if len(values) == 1:
        raise DataError(f"{path}: every mask holds {values[0]} alone; wanted two values at least")
    if not any(classes) or classes[-1] >= _MOST_UNNAMED or classes != list(range(len(classes))):
        line = ", ".join(f'{value} = "{name}"' for value, name in propose_values(values).items())
        raise DataError(
            f"{path}: the masks hold {_list(values)}, and nothing says what those are; "
            f"write values = {{{line}}} into a data file (`unihead-data show` prints one)"
        )
    return (BACKGROUND, *(f"class {value}" for value in classes[1:]))


def _list(names: Sequence[object]) -> str:
    shown = ", ".join(str(name) for name in names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")  # noqa: PLR2004 - the rest of them
