"""A folder a class, with pictures at any depth."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from training.data.layouts.faults import Faults
from training.data.layouts.files import (
    FOREIGN_SUFFIXES,
    PICTURE_SUFFIXES,
    SPLIT_NAMES,
    find_splits,
    list_files,
    list_folders,
    read_names,
    say_what_is_there,
    walk_files,
)
from training.data.layouts.readings import FoundSet, Labelled, Layout, Place, Reading


def find_folders(folder: Path) -> FoundSet | None:
    """Find class folders: in the folders of the splits, or (a set that is not split) in this one."""
    splits = find_splits(folder)
    if any(_holds_classes(inner) for inner in splits.values()):
        return FoundSet(Layout.FOLDERS, folder, {split: Place(folder, (inner,)) for split, inner in splits.items()})
    if splits or not any(list_files(inner, PICTURE_SUFFIXES | FOREIGN_SUFFIXES) for inner in list_folders(folder)):
        return None
    return FoundSet(Layout.FOLDERS, folder, {"all": Place(folder, (folder,))})


def read_folders(place: Place, faults: Faults) -> Reading:
    """Read the class folders of one split; names are the folders', in their order or in that of classes.txt."""
    (root,) = place.pictures
    folders = list_folders(root)
    names = tuple(folder.name for folder in folders)
    listed = read_names(place.root)
    if set(names) <= set(listed):
        names = listed
    _report_spellings(root, folders, faults)
    pictures: list[Labelled] = []
    for folder in folders:
        found = [Labelled(path, label=names.index(folder.name)) for path in walk_files(folder)]
        pictures += found
        if not found:
            faults.note("empty-class-folder", folder, say_what_is_there(folder))
    if not pictures:
        empty = next((folder for folder in folders if any(True for _ in walk_files(folder, FOREIGN_SUFFIXES))), root)
        faults.refuse("empty-split", empty, say_what_is_there(empty))
    return Reading(root, names, tuple(sorted(pictures, key=lambda each: (each.label or 0, each.image))))


def _holds_classes(folder: Path) -> bool:
    classes = [inner for inner in list_folders(folder) if inner.name.lower() not in SPLIT_NAMES]
    return any(any(True for _ in walk_files(inner, PICTURE_SUFFIXES | FOREIGN_SUFFIXES)) for inner in classes)


def _report_spellings(root: Path, folders: list[Path], faults: Faults) -> None:
    """Tell class folders that differ by case, spaces or signs alone: most often one class in two spellings."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for folder in folders:
        spellings["".join(filter(str.isalnum, folder.name.casefold())) or folder.name].append(folder.name)
    for names in spellings.values():
        if len(names) > 1:
            faults.note("duplicate-class-name", root, f"has {' and '.join(names)}; wanted one folder a class")
