"""What the splits of a data set list, whatever its layout: one entry for each picture that is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from training.data.doctor.annotations import LedgerFaults, examine_boxes
from training.data.doctor.codes import Ledger
from training.data.doctor.findings import PictureBox
from training.data.doctor.layouts import ExaminedSet
from training.data.layouts.coco import open_coco
from training.data.layouts.coco_rows import load_document
from training.data.layouts.faults import DataError
from training.data.layouts.files import list_files
from training.data.layouts.outlines import Outlines
from training.data.layouts.readings import Labelled, Layout, Place, Reading
from training.data.sets.data_file import BACKGROUND, VOID_NAME
from training.data.sets.guess import READERS
from training.data.sets.opening import name_numbers, rename
from training.options.base import Task

_TOLD_SPLITS = ("train", "val")


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture of a split and what is said of it.

    Attributes:
        path: the picture's file; it exists.
        listed_size: (width, height) in pixels, where an annotation file says it.
        boxes: its objects, for detection.
        mask: its mask's file, or its outlines, for segmentation.
        label: its class name, for classification.
    """

    path: Path
    listed_size: tuple[int, int] | None = None
    boxes: tuple[PictureBox, ...] = ()
    mask: Path | Outlines | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class SplitContents:
    """What one split lists.

    Attributes:
        entries: its pictures.
        class_ids: id by class name as the split has it; the position where a layout has no ids of its own.
        source: the file or folder that says so.
        names: by mask value, for segmentation; None where nothing names a value.
    """

    source: Path
    entries: Sequence[Entry]
    class_ids: Mapping[str, object] = field(default_factory=dict)
    names: tuple[str | None, ...] = ()


def read_contents(each: ExaminedSet, ledger: Ledger, *, others: Sequence[ExaminedSet] = ()) -> dict[str, SplitContents]:
    """List the splits of a set, train first, and write a case for whatever they lack or should not have.

    A split whose annotation file cannot be read is left out.

    Args:
        each: the set.
        ledger: takes the cases.
        others: all sets that are examined; a split may lie in another one.
    """
    found = each.found
    has = {split for one in (each, *others) if one.source.task is each.source.task for split in one.found.places}
    held_out = any(one.source.hold_out for one in (each, *others) if one.source.task is each.source.task)
    for split in _TOLD_SPLITS:
        if split not in has and not (split == "val" and (held_out or "choose" in has)):
            ledger.add("missing-split", found.root, f"has no {split}; wanted {' and '.join(_TOLD_SPLITS)}")
    faults = LedgerFaults(ledger)
    readings: dict[str, Reading] = {}
    boxes: dict[Path, tuple[PictureBox, ...]] = {}
    for split, place in found.places.items():
        if found.layout is Layout.COCO:
            readings[split] = _read_coco(place, each, boxes, ledger)
        else:
            readings[split] = READERS[found.layout](place, faults)
    try:
        numbers, _ = name_numbers(each.source, each.data, each.path, found.layout, readings)
    except DataError as error:
        numbers = ()
        ledger.add("mask-value-unknown", found.root, str(error).removeprefix(f"{each.path}: "))
    listed = each.data.classes.names(each.source.task)
    contents = {}
    for split, reading in readings.items():
        if reading.names or reading.pictures:
            renamed = rename(each.source, reading, numbers, listed)
            _report_names(renamed, listed, ledger)
            contents[split] = _describe(renamed, reading, boxes)
    _report_foreign_files(each, ledger)
    return contents


def _describe(renamed: Reading, own: Reading, boxes: Mapping[Path, tuple[PictureBox, ...]]) -> SplitContents:
    """A reading as the checks want it: names in place of labels, boxes as their files mean them."""
    names = [name or "" for name in renamed.names]
    entries = [Entry(each.image, each.size, boxes.get(each.image) or _boxes(each, names)) for each in renamed.pictures]
    entries = [
        replace(entry, mask=each.mask, label=None if each.label is None else names[each.label])
        for entry, each in zip(entries, renamed.pictures, strict=True)
    ]
    is_masks = any(each.mask is not None for each in renamed.pictures)
    ids = {
        name: own.ids.get(before or "", label)
        for label, (name, before) in enumerate(zip(names, own.names, strict=False))
    }
    return SplitContents(own.source, entries, {} if is_masks else ids, renamed.names if is_masks else ())


def _boxes(picture: Labelled, names: Sequence[str]) -> tuple[PictureBox, ...]:
    rows = picture.boxes
    if rows is None:
        return ()
    return tuple(
        (names[label], (float(x1), float(y1), float(x2), float(y2)), bool(crowd))
        for (x1, y1, x2, y2), label, crowd in zip(rows.xyxy.tolist(), rows.labels.tolist(), rows.crowd, strict=True)
    )


def _read_coco(place: Place, each: ExaminedSet, boxes: dict[Path, tuple[PictureBox, ...]], ledger: Ledger) -> Reading:
    """Boxes with their faults, where the training reader clips them and leaves them out."""
    rows, located = open_coco(place, LedgerFaults(ledger))
    bar = each.source.min_score
    rows = replace(rows, annotations=[row for row in rows.annotations if row.score is None or row.score >= bar])
    sizes = {number: rows.images[number].size or size for number, (_, size) in located.items()}
    by_image = examine_boxes(place.source, rows, sizes, ledger)
    names = tuple(dict.fromkeys(rows.categories.values()))
    ids: dict[str, object] = {name: number for number, name in reversed(list(rows.categories.items()))}
    for number, (path, _) in located.items():
        boxes[path] = (*boxes.get(path, ()), *by_image.get(number, ()))
    pictures = [Labelled(path, size=rows.images[number].size) for number, (path, _) in located.items()]
    _report_unlisted(place, each.found.places, {path for path, _ in located.values()}, ledger)
    return Reading(place.source, names, tuple({picture.image: picture for picture in pictures}.values()), ids)


def _report_unlisted(place: Place, places: Mapping[str, Place], listed: set[Path], ledger: Ledger) -> None:
    """Tell pictures that lie beside listed ones, in a folder that is this split's alone."""
    counts = Counter(folder for each in places.values() for folder in each.pictures)
    for folder in sorted({path.parent for path in listed}):
        if counts[folder] <= 1 and (folder in place.pictures or not counts[folder]):
            for path in list_files(folder):
                if path not in listed:
                    ledger.add("unlisted-picture", path, f"is not in {ledger.place(place.source)}")


def _report_names(reading: Reading, listed: Sequence[str], ledger: Ledger) -> None:
    """Tell classes that the data file, or a set that has official names, does not know."""
    for name in dict.fromkeys(reading.names):
        if listed and name is not None and name not in {*listed, VOID_NAME, BACKGROUND}:
            sentence = f"{name!r}; wanted one of {len(listed)} classes, such as {listed[0]!r}"
            ledger.add("unknown-class-name", reading.source, sentence)


def _report_foreign_files(each: ExaminedSet, ledger: Ledger) -> None:
    """Tell an annotation file beside the splits of whose pictures less than half are in them."""
    places = each.found.places.values()
    if each.source.task is not Task.DETECTION or each.found.layout is not Layout.COCO or each.path.is_file():
        return
    here = {path.name for place in places for folder in place.pictures for path in list_files(folder)}
    for path in list_files(each.found.root, {".json"}):
        if path in {place.listing for place in places}:
            continue
        try:
            rows = load_document(path)["images"]
        except ValueError:
            continue  # no COCO file: a manifest, say
        named = {str(row.get("file_name")) for row in rows if isinstance(row, dict)}
        present = len(named & here)
        if 2 * present < len(named):
            ledger.add("foreign-annotation-file", path, f"lists {len(rows)} pictures, {present} of which are here")
