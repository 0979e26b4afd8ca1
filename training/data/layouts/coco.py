"""COCO JSON in the folders of its many exporters: COCO 2017, Roboflow, CVAT, Label Studio, today's labels.json."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Final

from training.data.layouts.coco_rows import AnnotationRow, CocoRows, Id, load_document, read_rows
from training.data.layouts.faults import Faults
from training.data.layouts.files import (
    Finder,
    find_splits,
    list_files,
    list_folders,
    read_size,
    say_what_is_there,
    split_of_name,
)
from training.data.layouts.outlines import Outlines, Runs, Shape
from training.data.layouts.readings import BoxRows, FoundSet, Labelled, Layout, Place, Reading, clip, make_boxes
from training.data.taxonomy import VOID

# What exporters call the file, the surest first.
_FILE_NAMES: Final = ("labels.json", "_annotations.coco.json", "annotations.json", "result.json", "coco.json")
_PICTURE_FOLDERS: Final = ("data", "images")


def find_coco(folder: Path) -> FoundSet | None:
    """Find COCO JSON: one file a split beside its pictures, files in `annotations/`, or one file for all."""
    if (found := _find_annotations(folder)) or (found := _find_in_splits(folder)):
        return FoundSet(Layout.COCO, folder, found)
    if (listing := _find_file(folder)) is not None:
        return FoundSet(Layout.COCO, folder, {"all": _place(folder, folder, listing)})
    return None


def read_coco(place: Place, faults: Faults) -> Reading:
    """Read the boxes of one COCO file."""
    rows, located = open_coco(place, faults)
    names, label_of = _number(rows)
    by_image = _group(rows)
    pictures = []
    for number, (path, size) in located.items():
        boxes, listed = _read_boxes(place.source, by_image[number], label_of, size, faults), rows.images[number].shown
        shown = None if listed is None else tuple(names.index(name) for name in listed if name in names)
        pictures.append(Labelled(path, boxes=boxes, shown=shown, size=size))
    return Reading(place.source, names, tuple(sorted(pictures, key=lambda each: each.image)), _ids(rows))


def read_coco_masks(place: Place, faults: Faults) -> Reading:
    """Read the outlines of one COCO file as masks: background, then its categories; crowds are void."""
    rows, located = open_coco(place, faults)
    names, label_of = _number(rows)
    by_image = _group(rows)
    pictures = []
    for number, (path, size) in located.items():
        shapes = []
        # Large ones first, so that what lies before them is drawn over them.
        for row in sorted(by_image[number], key=lambda row: -row.xywh[2] * row.xywh[3]):
            shape: Shape | None = row.shape
            if shape is None:
                faults.mend(
                    "annotation-without-outline", place.source, "has no outline; its box is void", entry=row.entry
                )
                shape = (_corners(row),)
            elif isinstance(shape, Runs) and not _fits(shape, size):
                sentence = f"its run lengths do not add up to {size[0]} x {size[1]}; export them again"
                faults.refuse("corrupt-annotation", place.source, sentence, entry=row.entry)
                continue
            is_void = row.crowd or row.shape is None
            shapes.append((VOID if is_void else label_of[row.category] + 1, shape))
        pictures.append(Labelled(path, mask=Outlines(*size, tuple(shapes)), size=size))
    return Reading(
        place.source, ("background", *names), tuple(sorted(pictures, key=lambda each: each.image)), _ids(rows)
    )


def has_outlines(place: Place) -> bool:
    """Whether most annotations of a file have an outline."""
    rows, _ = open_coco(place, Faults(), locate=False)
    with_outline = sum(row.shape is not None for row in rows.annotations)
    return 2 * with_outline > len(rows.annotations)


def _find_annotations(folder: Path) -> dict[str, Place]:
    """`annotations/instances_val2017.json` has its pictures in val2017/, images/val2017/, val/data/ or images/."""
    places: dict[str, Place] = {}
    for path in list_files(folder / "annotations", {".json"}):
        split = "all" if path.stem == "instances_default" else split_of_name(path.stem)
        if split is None or split in places:
            continue
        release = path.stem.removeprefix("instances_")
        candidates = [folder / release, folder / "images" / release, *_picture_folders(folder)]
        if split != "all":
            candidates += [inner for name in (split, "valid") for inner in _picture_folders(folder / name)]
        places[split] = Place(folder, _existing([*candidates, folder]), path)
    return places


def _find_in_splits(folder: Path) -> dict[str, Place]:
    places = {}
    for split, inner in find_splits(folder).items():
        listing = _find_file(inner)
        if listing is not None:
            places[split] = _place(folder, inner, listing)
        elif [path.name for path in list_folders(inner)] == ["data"]:  # its file was lost; reading says so
            places[split] = Place(folder, (inner / "data",), inner / "labels.json")
    if not places:  # train.json and val.json side by side
        for path in list_files(folder, {".json"}):
            named = split_of_name(path.stem)
            if named is not None and named not in places and _looks_like_coco(path):
                places[named] = _place(folder, folder, path)
    return places


def _find_file(folder: Path) -> Path | None:
    files = {path.name: path for path in list_files(folder, {".json"})}
    for name in _FILE_NAMES:
        if name in files:
            return files[name]
    if len(files) == 1 and _looks_like_coco(only := next(iter(files.values()))):
        return only
    return None


def _looks_like_coco(path: Path) -> bool:
    """Whether a JSON of any name names images and annotations; the end counts too, for the order of keys is free."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
        file.seek(max(0, path.stat().st_size - (1 << 16)))
        tail = file.read()
    return sum(f'"{word}"'.encode() in head + tail for word in ("images", "annotations", "categories")) > 1


def _place(root: Path, folder: Path, listing: Path) -> Place:
    return Place(root, _existing([*_picture_folders(folder), folder]), listing)


def _picture_folders(folder: Path) -> list[Path]:
    return [folder / name for name in _PICTURE_FOLDERS]


def _existing(folders: list[Path]) -> tuple[Path, ...]:
    return tuple(path for path in folders if path.is_dir())


def open_coco(
    place: Place, faults: Faults, *, locate: bool = True
) -> tuple[CocoRows, dict[Id, tuple[Path, tuple[int, int]]]]:
    """Read a file's rows, and find its pictures and their sizes."""
    try:
        rows = read_rows(place.source, load_document(place.source), faults)
    except ValueError as error:
        if error.__class__ is not ValueError:
            raise
        faults.refuse("unreadable-annotation-file", place.source, str(error))
        return CocoRows({}, {}, ()), {}
    finder, located = Finder(place.pictures), {}
    for number, row in rows.images.items() if locate else ():
        try:
            path = finder.find(row.file_name)
            if path is None:
                where = place.pictures[0] if place.pictures else place.root
                sentence = f"image {number} names {row.file_name!r}, and there is no such picture below {where}"
                there = say_what_is_there(where)
                sentence += f": {there}" if "files such as" in there else "; put it there, or take the entry out"
                faults.refuse("listed-picture-missing", place.source, sentence)
                continue
            located[number] = path, row.size or read_size(path)
        except ValueError as error:
            if error.__class__ is not ValueError:
                raise
            faults.refuse("listed-picture-missing", place.source, f"image {number}: {error}")
    if locate and not rows.images:
        faults.refuse("empty-split", place.source, "lists no picture; wanted at least one")
    return rows, located


def _number(rows: CocoRows) -> tuple[tuple[str, ...], dict[Id, int]]:
    """Names in the file's order, each once, and their positions by category id."""
    names = tuple(dict.fromkeys(rows.categories.values()))
    position = {name: label for label, name in enumerate(names)}
    return names, {number: position[name] for number, name in rows.categories.items()}


def _ids(rows: CocoRows) -> dict[str, object]:
    # Reversed, so that of two categories with one name the first one's id stays.
    return {name: number for number, name in reversed(list(rows.categories.items()))}


def _group(rows: CocoRows) -> dict[Id, list[AnnotationRow]]:
    grouped: dict[Id, list[AnnotationRow]] = defaultdict(list)
    for row in rows.annotations:
        grouped[row.image].append(row)
    return grouped


def _read_boxes(
    path: Path, rows: list[AnnotationRow], label_of: dict[Id, int], size: tuple[int, int], faults: Faults
) -> BoxRows:
    kept = []
    for row in rows:
        x, y, width, height = row.xywh
        box, code = clip((x, y, x + width, y + height), *size)
        if box is None:
            sides = ", ".join(f"{side:g}" for side in row.xywh)
            sentence = f"x, y, width, height = [{sides}] in a picture of {size[0]} x {size[1]}"
            faults.mend(code, path, sentence, entry=row.entry)
        else:
            kept.append((box, label_of[row.category], row.crowd, row.score))
    return make_boxes(kept)


def _corners(row: AnnotationRow) -> tuple[float, ...]:
    x, y, width, height = row.xywh
    return (x, y, x + width, y, x + width, y + height, x, y + height)


def _fits(shape: Runs, size: tuple[int, int]) -> bool:
    try:
        return Outlines(*size, ((1, shape),)).draw() is not None
    except (ValueError, OverflowError):
        return False
