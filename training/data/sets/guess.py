"""Guess what a folder is: one set in some layout, or a folder of sets; what comes of it is a data file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from training.data.layouts.coco import find_coco, read_coco, read_coco_masks
from training.data.layouts.faults import DataError, Faults
from training.data.layouts.files import FOREIGN_SUFFIXES, list_files, list_folders, say_what_is_there, walk_files
from training.data.layouts.folders import find_folders, read_folders
from training.data.layouts.masks import find_masks, read_masks
from training.data.layouts.readings import FoundSet, Layout, Place, Reading
from training.data.layouts.voc import find_voc, find_voc_masks, read_voc, read_voc_masks
from training.data.layouts.yolo import find_yolo, read_yolo
from training.data.sets.data_file import BACKGROUND, SHIPPED, Classes, DataFile, Source
from training.data.taxonomy import IMAGENETTE
from training.options.base import Task

WANTED: Final = """one of
  segmentation:
    {train,val}/<id>.jpg with <id>.png or <id>_mask.png beside it          pictures and masks
    images/ and masks/, as a whole or by split                             pictures and masks
    VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets}             PASCAL VOC masks
    COCO JSON with outlines, in a folder named segmentation                COCO outlines
  detection:
    {train,val}/labels.json with data/, _annotations.coco.json (Roboflow)  COCO JSON
    annotations/instances_*.json with train2017/, images/ (COCO, CVAT)     COCO JSON
    data.yaml, or images/ and labels/*.txt                                 YOLO txt
    Annotations/*.xml with JPEGImages/, or <id>.xml beside <id>.jpg        PASCAL VOC XML
  classification:
    {train,val}/<class>/<picture>                                          class folders
in a folder of its own, or in folders named segmentation, detection, classification"""

# The order counts: what is told by surer signs comes first.
_FINDERS: Final[dict[Layout, Callable[[Path], FoundSet | None]]] = {
    Layout.VOC_MASKS: find_voc_masks,
    Layout.VOC: find_voc,
    Layout.COCO: find_coco,
    Layout.YOLO: find_yolo,
    Layout.MASKS: find_masks,
    Layout.FOLDERS: find_folders,
}
READERS: Final[dict[Layout, Callable[[Place, Faults], Reading]]] = {
    Layout.MASKS: read_masks,
    Layout.VOC_MASKS: read_voc_masks,
    Layout.COCO_MASKS: read_coco_masks,
    Layout.COCO: read_coco,
    Layout.YOLO: read_yolo,
    Layout.VOC: read_voc,
    Layout.FOLDERS: read_folders,
}
# Today's folders keep all the names of what they were taken from, so that models of several samples can be compared.
_MINI_SETS: Final = {
    "mini_voc_seg": (Task.SEGMENTATION, "voc"),
    "mini_coco_det": (Task.DETECTION, "coco"),
    "imagenette_160": (Task.CLASSIFICATION, "imagenette"),
}
_NEUTRAL: Final = {task.value: task for task in Task}
# Of a set that is not split; what is measured must not be learned.
HELD_OUT: Final = 0.1


def find_set(folder: Path, layout: Layout | None = None, task: Task | None = None) -> FoundSet | None:
    """Find the set that a folder is.

    Args:
        folder: to look at.
        layout: the only one that it may be in; guessed if not given.
        task: the only one that it may be for.
    """
    if layout is Layout.COCO_MASKS:
        found = find_coco(folder)
        return FoundSet(layout, found.root, found.places) if found is not None else None
    if layout is not None:
        return _FINDERS[layout](folder)
    for each, find in _FINDERS.items():
        if task in {None, each.task} and (found := find(folder)) is not None:
            return found
    if task is Task.SEGMENTATION and (found := find_coco(folder)) is not None:
        return FoundSet(Layout.COCO_MASKS, found.root, found.places)
    return None


def guess(root: Path) -> DataFile:
    """Guess the sources of a folder: it is a set itself, or holds sets in its sub folders.

    Raises:
        DataError: there is no such folder, or nothing in it is a set.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; wanted a folder of data sets, or a data file")
    named = [path for path in list_folders(root) if path.name.lower() in {*_NEUTRAL, *_MINI_SETS}]
    if not named:
        for path in (root, *(root / name for name in ("dataset", "data") if (root / name).is_dir())):
            found = find_set(path)
            # Folders of sets look like folders of classes.
            if found is not None and not (
                found.layout is Layout.FOLDERS and "all" in found.places and _find_inner(path)
            ):
                return _describe([(path, found, root)])
    candidates = named or list_folders(root)
    sets = [
        (path, found, root)
        for path in candidates
        if (found := find_set(path, task=_task_of(path, anything=not named))) is not None
    ]
    if not sets:
        raise DataError(f"{root}: neither it nor a folder in it is a data set{_foreign(root)}; wanted {WANTED}")
    return _describe(sets)


def _find_inner(folder: Path) -> bool:
    """Whether a folder in this one is a set that is split or has labels of its own."""
    found = (find_set(path) for path in list_folders(folder))
    return any(each is not None and not (each.layout is Layout.FOLDERS and "all" in each.places) for each in found)


def _task_of(path: Path, *, anything: bool) -> Task | None:
    if path.name.lower() in _NEUTRAL:
        return _NEUTRAL[path.name.lower()]
    return None if anything else _MINI_SETS[path.name.lower()][0]


def _describe(sets: list[tuple[Path, FoundSet, Path]]) -> DataFile:
    sources, classes = [], {}
    order = list(Task)
    for path, found, root in sorted(sets, key=lambda each: order.index(each[1].layout.task)):
        task = found.layout.task
        is_mini = path.name in _MINI_SETS and _MINI_SETS[path.name][0] is task and _is_official(path, found)
        if is_mini:
            classes[task.value] = _MINI_SETS[path.name][1]
        relative = path.relative_to(root).as_posix() if path != root else "."
        unsplit = "all" in found.places
        others = any(
            each.layout.task is task and "val" in each.places for each_path, each, _ in sets if each_path != path
        )
        hold_out = HELD_OUT if unsplit and not others else 0.0
        sources.append(
            Source(
                task=task,
                path=relative,
                layout=found.layout,
                split="train" if unsplit else None,
                hold_out=hold_out,
                known="all" if is_mini else (),
            )
        )
    return DataFile(classes=Classes(**classes), source=tuple(sources))


def _is_official(path: Path, found: FoundSet) -> bool:
    """Whether a set in one of today's folders is of what the folder is named after; others have only its layout."""
    names: set[str | None] = set()
    for place in found.places.values():
        try:
            names |= set(READERS[found.layout](place, Faults()).names)
        except DataError:  # reading tells
            continue
    official = set(SHIPPED[_MINI_SETS[path.name][1]]) | IMAGENETTE.keys()
    return not names - {None, BACKGROUND} or bool((names - {BACKGROUND}) & official)


def _foreign(root: Path) -> str:
    """Say what else lies there, where it is something that people take for data."""
    jsons = [path for path in walk_files(root, {".json"}) if b'"shapes"' in path.read_bytes()[:4096]]
    if jsons:
        return (
            f": {jsons[0].relative_to(root)} is a file of LabelMe, which no part of this reads; "
            "convert it to COCO JSON (`labelme2coco`, or export from CVAT)"
        )
    foreign = next(walk_files(root, FOREIGN_SUFFIXES), None)
    if foreign is not None and list_files(foreign.parent, FOREIGN_SUFFIXES):
        return f": {foreign.parent.relative_to(root)} {say_what_is_there(foreign.parent)}"
    return ""
