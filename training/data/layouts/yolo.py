"""YOLO txt: a file a picture, a line an object, in shares of the picture; `data.yaml` says where, and the classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from training.data.layouts.faults import Faults
from training.data.layouts.files import (
    PICTURE_SUFFIXES,
    SPLIT_NAMES,
    find_splits,
    list_files,
    read_names,
    read_size,
    say_what_is_there,
    walk_files,
)
from training.data.layouts.readings import BoxRows, FoundSet, Labelled, Layout, Place, Reading, clip, make_boxes

_BOX_COLUMNS = 5  # class, x, y, width, height; in shares of the picture
_SCORED_COLUMNS = 6  # a prediction that was kept as a label


def find_yolo(folder: Path) -> FoundSet | None:
    """Find a `data.yaml` with names, or `images/` beside `labels/`, as a whole or by split."""
    if (listing := find_yaml(folder)) is not None:
        places = {}
        for split in ("train", "val", "test"):
            if (pictures := _pictures_of(folder, listing, split)) is not None:
                places[split] = Place(folder, pictures, listing)
        if places:
            return FoundSet(Layout.YOLO, folder, places)
    if not (folder / "labels").is_dir() or not (folder / "images").is_dir():
        by_split = {
            split: Place(folder, (inner / "images",))
            for split, inner in find_splits(folder).items()
            if (inner / "images").is_dir() and list_files(inner / "labels", {".txt"})
        }
        return FoundSet(Layout.YOLO, folder, by_split) if by_split else None
    if not any(True for _ in walk_files(folder / "labels", {".txt"})):
        return None
    splits = find_splits(folder / "images") or {"all": folder / "images"}
    return FoundSet(Layout.YOLO, folder, {split: Place(folder, (inner,)) for split, inner in splits.items()})


def find_yaml(folder: Path) -> Path | None:
    """The YAML file of a set: the one that has names."""
    for path in list_files(folder, {".yaml", ".yml"}):
        document = _load(path)
        if "names" in document or ("nc" in document and "train" in document):
            return path
    return None


def read_yolo(place: Place, faults: Faults) -> Reading:
    """Read the boxes beside the pictures of a split; a picture without a file shows nothing."""
    names = _read_names(place, faults)
    pictures = []
    for path in _expand(place, faults):
        listing = _label_file(path)
        try:
            size = read_size(path)
        except ValueError as error:
            faults.refuse("unreadable-picture", path, str(error))
            continue
        boxes = _read_boxes(listing, size, names, faults) if listing.is_file() else make_boxes([])
        pictures.append(Labelled(path, boxes=boxes))
    if not pictures:
        where = place.pictures[0] if place.pictures else place.root
        faults.refuse("empty-split", where, say_what_is_there(where))
    return Reading(place.source, names, tuple(pictures))


def _load(path: Path) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8-sig", errors="replace"))
    except (yaml.YAMLError, OSError):
        return {}
    return document if isinstance(document, dict) else {}


def _pictures_of(folder: Path, listing: Path, split: str) -> tuple[Path, ...] | None:
    """What `train:` and so on name: folders, lists of files, or several of them; None where the key is missing."""
    document = _load(listing)
    words = [word for word, name in SPLIT_NAMES.items() if name == split]
    value = next((document[word] for word in words if document.get(word)), None)
    if value is None:
        return None
    base = document.get("path")
    return tuple(
        _resolve(folder, base if isinstance(base, str) else None, str(entry))
        for entry in (value if isinstance(value, list) else [value])
    )


def _resolve(folder: Path, base: str | None, entry: str) -> Path:
    """Where an entry lies: from the file, from its `path`, or (Roboflow writes ../train/images) without the dots."""
    bare = Path(*(part for part in Path(entry.replace("\\", "/")).parts if part not in {"..", ".", "/"}))
    candidates = [folder / entry, *([folder / base / entry] if base else []), folder / bare, folder / "images" / bare]
    return next((path for path in candidates if path.exists() and path.resolve() != folder.resolve()), folder / bare)


def _read_names(place: Place, faults: Faults) -> tuple[str, ...]:
    listing = place.listing
    document = _load(listing) if listing is not None else {}
    value = document.get("names")
    source = listing or place.root
    if isinstance(value, dict):
        try:
            numbered = {int(number): str(name).strip() for number, name in value.items()}
        except ValueError:
            numbered = {}
        if sorted(numbered) != list(range(len(numbered))):
            sentence = f"names are numbered {sorted(map(str, value))}; wanted 0, 1, 2 ... without a gap"
            faults.refuse("corrupt-category", source, sentence, entry="names")
        return tuple(numbered[number] for number in sorted(numbered))
    if isinstance(value, list):
        names = tuple(str(name).strip() for name in value)
    elif not (names := read_names(place.root) or read_names(place.root / "labels")):
        sentence = "nothing names the classes; write `names: [cat, dog]` into data.yaml, or classes.txt, one a line"
        faults.refuse("corrupt-category", source, sentence)
    count = document.get("nc")
    if isinstance(count, int) and count != len(names):
        sentence = f"nc is {count}, and there are {len(names)} names; mend the one that is wrong"
        faults.refuse("corrupt-category", source, sentence, entry="nc")
    return names


def _expand(place: Place, faults: Faults) -> list[Path]:
    """The pictures of a split: below its folders, or named by its lists."""
    found: list[Path] = []
    for entry in place.pictures:
        if entry.is_dir():
            found += walk_files(entry)
        elif entry.is_file() and entry.suffix.lower() == ".txt":
            for number, line in enumerate(entry.read_text(encoding="utf-8-sig").splitlines(), start=1):
                path = _resolve(entry.parent, None, line.strip()) if line.strip() else None
                if path is not None and path.is_file() and path.suffix.lower() in PICTURE_SUFFIXES:
                    found.append(path)
                elif path is not None:
                    sentence = f"names {line.strip()!r}, and there is no such picture; put it there, or delete the line"
                    faults.refuse("listed-picture-missing", entry, sentence, entry=f"line {number}")
        else:
            sentence = f"no such folder; {place.source.name} names it: put the pictures there, or mend the entry"
            faults.refuse("empty-split", entry, sentence)
    return sorted(set(found))


def _label_file(picture: Path) -> Path:
    """The last folder `images` becomes `labels`; where there is none, or no file there, beside the picture."""
    parts = list(picture.parts)
    beside = picture.with_suffix(".txt")
    for position in range(len(parts) - 2, -1, -1):
        if parts[position].lower() == "images":
            parts[position] = "labels"
            other = Path(*parts).with_suffix(".txt")
            return other if other.is_file() or not beside.is_file() else beside
    return beside


def _read_boxes(path: Path, size: tuple[int, int], names: tuple[str, ...], faults: Faults) -> BoxRows:
    kept = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        columns = line.split()
        if not columns:
            continue
        entry = f"line {number}"
        try:
            label, values = float(columns[0]), [float(column) for column in columns[1:]]
        except ValueError:
            faults.refuse(
                "corrupt-annotation",
                path,
                f"{line.strip()[:60]!r}; wanted numbers: class x y width height",
                entry=entry,
            )
            continue
        if not label.is_integer() or not 0 <= label < len(names):
            sentence = f"class {columns[0]}; wanted 0 to {len(names) - 1}, for there are {len(names)} names"
            faults.refuse("unknown-category-id", path, sentence, entry=entry)
            continue
        xyxy = _corners(values)
        if xyxy is None:
            sentence = f"{len(columns)} columns; wanted class x y width height, or class and a polygon x y x y ..."
            faults.refuse("corrupt-annotation", path, sentence, entry=entry)
            continue
        if max(values) > 1.5 or min(values) < -0.5:  # noqa: PLR2004 - far beyond what rounding or a cut object explains
            sentence = f"{' '.join(columns[1:5])} are no shares of the picture; wanted 0 to 1, not pixels"
            faults.refuse("corrupt-annotation", path, sentence, entry=entry)
            continue
        box, code = clip(tuple(side * full for side, full in zip(xyxy, size * 2, strict=True)), *size)  # type: ignore[arg-type]  # four sides
        if box is None:
            faults.mend(code, path, line.strip()[:60], entry=entry)
            continue
        score = values[4] if len(columns) == _SCORED_COLUMNS and 0 <= values[4] <= 1 else None
        kept.append((box, int(label), False, score))
    return make_boxes(kept)


def _corners(values: list[float]) -> tuple[float, float, float, float] | None:
    """Corners in shares of the picture, of a box by its centre or around a polygon; None if it is neither."""
    if len(values) in {_BOX_COLUMNS - 1, _SCORED_COLUMNS - 1}:
        x, y, width, height = values[:4]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(values) >= 6 and len(values) % 2 == 0:  # noqa: PLR2004 - three corners
        return min(values[0::2]), min(values[1::2]), max(values[0::2]), max(values[1::2])
    return None
