"""What the splits of a data set list, whatever its layout: one entry for each picture that is there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from training.data.classes import IMAGENETTE_CLASSES
from training.data.doctor.annotations import examine_annotations, load_document
from training.data.doctor.codes import Ledger
from training.data.doctor.findings import PictureBox
from training.data.doctor.layouts import SPLITS, FoundSet, FoundSplit, Layout
from training.files import JPEG_SUFFIXES, PICTURE_SUFFIXES, list_files, list_folders


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture of a split and what is said of it.

    Attributes:
        path: the picture's file; it exists.
        listed_size: (width, height) in pixels, where an annotation file says it.
        boxes: its objects, for detection.
        mask: its mask's file, for segmentation; it exists.
        label: its class name, for classification.
    """

    path: Path
    listed_size: tuple[int, int] | None = None
    boxes: tuple[PictureBox, ...] = ()
    mask: Path | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class SplitContents:
    """What one split lists.

    Attributes:
        entries: its pictures.
        class_ids: id by class name as the split has it; the position where a layout has no ids of its own.
        source: the file or folder that says so.
    """

    source: Path
    entries: Sequence[Entry]
    class_ids: Mapping[str, int] = field(default_factory=dict)


def read_contents(found: FoundSet, ledger: Ledger) -> dict[str, SplitContents]:
    """List the splits of a set, train first, and write a case for whatever they lack or should not have.

    A split whose annotation file cannot be read is left out.
    """
    readers: dict[Layout, Callable[[FoundSplit, Ledger], SplitContents | None]] = {
        Layout.VOC_OFFICIAL: _read_official_voc,
        Layout.VOC_PAIRS: _read_voc_pairs,
        Layout.COCO_OFFICIAL: _read_coco,
        Layout.COCO_JSON: _read_coco,
        Layout.CLASS_FOLDERS: _read_class_folders,
    }
    contents = {}
    for name in SPLITS:
        if name not in found.splits:
            ledger.add("missing-split", found.root, f"has no {name}; wanted {' and '.join(SPLITS)}")
            continue
        split = readers[found.layout](found.splits[name], ledger)
        if split is None:
            continue
        contents[name] = split
        if not split.entries:
            ledger.add("empty-split", found.splits[name].folder, "holds no picture of the set; wanted at least one")
    if found.layout is Layout.COCO_JSON:
        _report_foreign_files(found, ledger)
    if found.layout is Layout.CLASS_FOLDERS:
        _report_folder_names(contents, ledger)
    return contents


def _read_voc_pairs(split: FoundSplit, ledger: Ledger) -> SplitContents:
    masks = {path.stem: path for path in list_files(split.folder, {".png"})}
    images = {path.stem: path for path in list_files(split.folder, JPEG_SUFFIXES)}
    for stem in sorted(masks.keys() - images.keys()):
        ledger.add("mask-without-picture", masks[stem], f"wanted {stem}.jpg beside it")
    return SplitContents(split.folder, _pair(images, masks, ledger))


def _read_official_voc(split: FoundSplit, ledger: Ledger) -> SplitContents:
    listing = split.listing or split.folder
    stems = listing.read_text(encoding="utf-8", errors="replace").split()
    images = {stem: split.folder / f"{stem}.jpg" for stem in stems}
    for path in images.values():
        if not path.is_file():
            ledger.add("listed-picture-missing", listing, f"names {path.stem}; no {ledger.place(path)}")
    masks = {path.stem: path for path in list_files(split.folder.parent / "SegmentationClass", {".png"})}
    return SplitContents(listing, _pair({stem: path for stem, path in images.items() if path.is_file()}, masks, ledger))


def _pair(images: Mapping[str, Path], masks: Mapping[str, Path], ledger: Ledger) -> list[Entry]:
    for stem, path in images.items():
        if stem not in masks:
            ledger.add("missing-mask", path, f"wanted a mask {stem}.png")
    return [Entry(path, mask=masks.get(stem)) for stem, path in images.items()]


def _read_coco(split: FoundSplit, ledger: Ledger) -> SplitContents | None:
    listing = split.listing or split.folder
    file = examine_annotations(listing, ledger)
    if file is None:
        return None
    entries = []
    for picture in file.pictures:
        path = split.folder / picture.file_name
        if path.is_file():
            entries.append(Entry(path, (picture.width, picture.height), picture.boxes))
        else:
            ledger.add("listed-picture-missing", listing, f"names {picture.file_name}; no {ledger.place(path)}")
    listed = {entry.path for entry in entries}
    for path in list_files(split.folder, PICTURE_SUFFIXES):
        if path not in listed and file.pictures:
            ledger.add("unlisted-picture", path, f"is not in {ledger.place(listing)}")
    return SplitContents(listing, entries, file.category_ids)


def _read_class_folders(split: FoundSplit, ledger: Ledger) -> SplitContents:
    folders = list_folders(split.folder)
    entries: list[Entry] = []
    for folder in folders:
        paths = list_files(folder, PICTURE_SUFFIXES)
        entries += [Entry(path, label=_class_name(folder)) for path in paths]
        if not paths:
            ledger.add("empty-class-folder", folder, f"wanted files ending in {', '.join(sorted(PICTURE_SUFFIXES))}")
    return SplitContents(split.folder, entries, {_class_name(folder): place for place, folder in enumerate(folders)})


def _class_name(folder: Path) -> str:
    return IMAGENETTE_CLASSES.get(folder.name, folder.name)


def _report_folder_names(contents: Mapping[str, SplitContents], ledger: Ledger) -> None:
    """Where one folder is named after a class of Imagenette, all must be; other sets have names of their own."""
    official = set(IMAGENETTE_CLASSES.values())
    is_imagenette = any(official & each.class_ids.keys() for each in contents.values())
    for each in contents.values():
        spellings: dict[str, list[str]] = defaultdict(list)
        for name in each.class_ids:
            spellings["".join(filter(str.isalnum, name.casefold()))].append(name)
            if is_imagenette and name not in official:
                ledger.add("unknown-class-name", each.source / name, "wanted a WordNet id of Imagenette, as n01440764")
        for names in spellings.values():
            if len(names) > 1:
                ledger.add("duplicate-class-name", each.source, f"has {' and '.join(names)}; wanted one folder a class")


def _report_foreign_files(found: FoundSet, ledger: Ledger) -> None:
    """Tell an annotation file beside the splits of whose pictures less than half are in them."""
    here = {path.name for split in found.splits.values() for path in list_files(split.folder, PICTURE_SUFFIXES)}
    for path in list_files(found.root, {".json"}):
        try:
            rows = load_document(path)["images"]
        except ValueError:
            continue  # no COCO file: a manifest, say
        named = {str(row.get("file_name")) for row in rows if isinstance(row, dict)}
        present = len(named & here)
        if 2 * present < len(named):
            ledger.add("foreign-annotation-file", path, f"lists {len(rows)} pictures, {present} of which are here")
