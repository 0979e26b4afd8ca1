"""Which data sets lie below a folder, and in which layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from training.files import JPEG_SUFFIXES, PICTURE_SUFFIXES, list_files, list_folders

SPLITS: Final = ("train", "val")

WANTED = """one of
  VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}   PASCAL VOC 2012
  {train,val}/<id>.jpg with <id>.png beside it                             VOC pairs
  annotations/instances_*.json with train2017/ and val2017/                COCO 2017
  {train,val}/labels.json with data/                                       COCO JSON
  {train,val}/<class>/<picture>                                            class folders"""


class LayoutError(ValueError):
    """No data set was found where one was wanted; the sentence shows the layouts."""


class Layout(StrEnum):
    """How a set lies on disk, in the report's words."""

    VOC_OFFICIAL = "PASCAL VOC 2012"
    VOC_PAIRS = "VOC pairs"
    COCO_OFFICIAL = "COCO 2017"
    COCO_JSON = "COCO JSON"
    CLASS_FOLDERS = "class folders"

    @property
    def task(self) -> str:
        """The task that such a set is for."""
        if self in {Layout.VOC_OFFICIAL, Layout.VOC_PAIRS}:
            return "segmentation"
        return "classification" if self is Layout.CLASS_FOLDERS else "detection"


@dataclass(frozen=True, slots=True)
class FoundSplit:
    """Where one split lies.

    Attributes:
        name: train or val.
        folder: of its pictures or class folders.
        listing: its annotation file or list of ids, where the layout has one; it need not exist.
    """

    name: str
    folder: Path
    listing: Path | None = None


@dataclass(frozen=True, slots=True)
class FoundSet:
    """One data set: its splits are those that exist; a missing one is for the checks to tell."""

    layout: Layout
    root: Path
    splits: Mapping[str, FoundSplit]


def find_sets(root: Path) -> tuple[FoundSet, ...]:
    """Recognise the set in a folder, or else those in its sub folders, sorted by name.

    Raises:
        LayoutError: there is no such folder, or nothing in it is a data set.
    """
    if not root.is_dir():
        raise LayoutError(f"{root}: no such folder; wanted a folder of data sets")
    found = _recognise(root)
    if found is not None:
        return (found,)
    sets = tuple(each for folder in list_folders(root) if (each := _recognise(folder)) is not None)
    if not sets:
        raise LayoutError(f"{root}: neither it nor a folder in it is a data set; wanted {WANTED}")
    return sets


def _recognise(folder: Path) -> FoundSet | None:
    for voc in (folder, folder / "VOC2012", folder / "VOCdevkit" / "VOC2012"):
        if (voc / "SegmentationClass").is_dir() and (voc / "ImageSets" / "Segmentation").is_dir():
            return FoundSet(Layout.VOC_OFFICIAL, voc, _official_voc(voc))
    instances = sorted((folder / "annotations").glob("instances_*.json"))
    if instances:
        return FoundSet(Layout.COCO_OFFICIAL, folder, _official_coco(folder, instances))
    present = [name for name in SPLITS if (folder / name).is_dir()]
    layout = next((found for name in present if (found := _layout_of_split(folder / name)) is not None), None)
    if layout is None:
        return None
    splits = {name: _mini_split(layout, folder / name) for name in present}
    return FoundSet(layout, folder, splits)


def _layout_of_split(folder: Path) -> Layout | None:
    inner = list_folders(folder)
    if (folder / "labels.json").is_file() or [path.name for path in inner] == ["data"]:
        return Layout.COCO_JSON
    if list_files(folder, {".png"}) and list_files(folder, JPEG_SUFFIXES):
        return Layout.VOC_PAIRS
    if any(list_files(path, PICTURE_SUFFIXES) for path in inner):
        return Layout.CLASS_FOLDERS
    return None


def _mini_split(layout: Layout, folder: Path) -> FoundSplit:
    if layout is Layout.COCO_JSON:
        return FoundSplit(folder.name, folder / "data", folder / "labels.json")
    return FoundSplit(folder.name, folder)


def _official_voc(root: Path) -> dict[str, FoundSplit]:
    lists = {name: root / "ImageSets" / "Segmentation" / f"{name}.txt" for name in SPLITS}
    return {name: FoundSplit(name, root / "JPEGImages", path) for name, path in lists.items() if path.is_file()}


def _official_coco(root: Path, instances: Iterable[Path]) -> dict[str, FoundSplit]:
    """Split names come from the files: instances_val2017.json has its pictures in val2017/."""
    splits = {}
    for path in instances:
        release = path.stem.removeprefix("instances_")
        name = release.rstrip("0123456789")
        if name in SPLITS:
            splits[name] = FoundSplit(name, root / release, path)
    return splits
