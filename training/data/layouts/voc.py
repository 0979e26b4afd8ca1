"""PASCAL VOC: XML files of boxes and palette masks, in the devkit's folders or beside the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from training.data.layouts.faults import Faults
from training.data.layouts.files import (
    Finder,
    find_splits,
    list_files,
    read_names,
    read_size,
    say_what_is_there,
)
from training.data.layouts.readings import BoxRows, FoundSet, Labelled, Layout, Place, Reading, clip, make_boxes

_PICTURE_FOLDERS: Final = ("JPEGImages", "images", "Images")
_XML_FOLDERS: Final = ("Annotations", "annotations", "xmls")


def find_voc(folder: Path) -> FoundSet | None:
    """Find VOC XML: `Annotations/` beside `JPEGImages/` with lists in `ImageSets/Main`, or files beside pictures."""
    for root in _devkits(folder):
        xmls = _first(root, _XML_FOLDERS)
        pictures = _first(root, _PICTURE_FOLDERS)
        if xmls is not None and pictures is not None and list_files(xmls, {".xml"}):
            lists = _lists(root, "Main")
            places = {split: Place(root, (pictures,), path) for split, path in lists.items()}
            return FoundSet(Layout.VOC, root, places or {"all": Place(root, (pictures,), xmls)})
    places = {
        split: Place(folder, tuple(path for path in (_first(inner, _PICTURE_FOLDERS), inner) if path is not None))
        for split, inner in find_splits(folder).items()
        if list_files(inner, {".xml"}) or list_files(inner / "Annotations", {".xml"})
    }
    if places:
        return FoundSet(Layout.VOC, folder, places)
    return FoundSet(Layout.VOC, folder, {"all": Place(folder, (folder,))}) if list_files(folder, {".xml"}) else None


def find_voc_masks(folder: Path) -> FoundSet | None:
    """Find `SegmentationClass/` with lists in `ImageSets/Segmentation`."""
    for root in _devkits(folder):
        lists = _lists(root, "Segmentation")
        if (root / "SegmentationClass").is_dir() and lists:
            places = {split: Place(root, (root / "JPEGImages",), path) for split, path in lists.items()}
            return FoundSet(Layout.VOC_MASKS, root, places)
    return None


def read_voc(place: Place, faults: Faults) -> Reading:
    """Read the XML files of one split; names are sorted, or as classes.txt has them."""
    rows = []
    for path in _xml_files(place, faults):
        document = _parse(path, faults)
        if document is None:
            continue
        picture = _find_picture(path, document, place, faults)
        if picture is not None:
            rows.append((path, document, picture))
    if not rows:
        faults.refuse("empty-split", place.source, "names no picture that is there; wanted at least one")
    found = {name for _, document, _ in rows for name in _object_names(document)}
    listed = read_names(place.root)
    names = listed if found <= set(listed) else tuple(sorted(found))
    # LabelImg and others count pixels from 0, the devkit from 1.
    first_pixel = 0 if any(_is_zero_based(document) for _, document, _ in rows) else 1
    pictures = []
    for path, document, picture in rows:
        size = _size(document) or _size_of(picture, faults)
        if size is not None:
            boxes = _read_boxes(path, document, size, names, first_pixel, faults)
            pictures.append(Labelled(picture, boxes=boxes, size=size))
    return Reading(place.source, names, tuple(sorted(pictures, key=lambda each: each.image)))


def read_voc_masks(place: Place, faults: Faults) -> Reading:
    """Pair the pictures of a list with their masks."""
    listing = place.source
    finder = Finder(place.pictures)
    masks = {path.stem: path for path in list_files(place.root / "SegmentationClass", {".png"})}
    pictures = []
    for stem in _stems(listing):
        picture = _by_stem(finder, stem)
        if picture is None:
            faults.refuse("listed-picture-missing", listing, f"names {stem}; no such picture in {place.pictures[0]}")
        elif stem not in masks:
            faults.refuse("missing-mask", picture, f"wanted a mask {stem}.png in SegmentationClass")
        else:
            pictures.append(Labelled(picture, mask=masks[stem]))
    if not pictures:
        faults.refuse("empty-split", listing, "names no picture that is there; wanted at least one")
    return Reading(listing, read_names(place.root), tuple(sorted(pictures, key=lambda each: each.image)))


def _devkits(folder: Path) -> list[Path]:
    releases = [path for kit in (folder, folder / "VOCdevkit") for path in sorted(kit.glob("VOC20*"))]
    return [folder, *releases]


def _first(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _lists(root: Path, kind: str) -> dict[str, Path]:
    paths = {split: root / "ImageSets" / kind / f"{split}.txt" for split in ("train", "val", "test")}
    return {split: path for split, path in paths.items() if path.is_file()}


def _stems(listing: Path) -> list[str]:
    """The first word of each line; lists of one class have -1, 0 or 1 behind it."""
    lines = listing.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [line.split()[0] for line in lines if line.strip()]


def _by_stem(finder: Finder, stem: str) -> Path | None:
    named = (finder.find(f"{stem}{suffix}") for suffix in (".jpg", ".jpeg", ".png", ".webp"))
    return next((path for path in named if path is not None), None)


def _xml_files(place: Place, faults: Faults) -> list[Path]:
    folder = place.listing if place.listing is not None and place.listing.is_dir() else None
    if folder is None and place.listing is not None:
        xmls = _first(place.root, _XML_FOLDERS) or place.root
        found = []
        for stem in _stems(place.listing):
            path = xmls / f"{stem}.xml"
            if path.is_file():
                found.append(path)
            else:
                faults.refuse("listed-picture-missing", place.listing, f"names {stem}; no {path}")
        return found
    folders = [folder] if folder is not None else [*place.pictures, place.pictures[-1] / "Annotations"]
    return [path for each in folders for path in list_files(each, {".xml"})]


def _parse(path: Path, faults: Faults) -> ET.Element | None:
    try:
        # Entities are left alone by expat's limits (2.4.1 and later), and nothing outside the file is fetched.
        return ET.parse(path).getroot()  # noqa: S314 - expat bounds what entities may grow to
    except (ET.ParseError, OSError, ValueError) as error:
        faults.refuse("unreadable-annotation-file", path, f"{error}; wanted XML as LabelImg writes it")
        return None


def _find_picture(path: Path, document: ET.Element, place: Place, faults: Faults) -> Path | None:
    finder = Finder(place.pictures)
    direct = next(
        (
            candidate
            for folder in place.pictures
            for suffix in (".jpg", ".jpeg", ".png", ".webp", ".JPG", ".JPEG", ".PNG")
            if (candidate := folder / f"{path.stem}{suffix}").is_file()
        ),
        None,
    )
    if direct is not None:
        return direct
    named = (document.findtext("filename") or "").strip()
    found = finder.find(named) if named else None
    if found is None:
        sentence = f"its picture {named or path.stem!r} is not there: {say_what_is_there(place.pictures[0])}"
        faults.refuse("listed-picture-missing", path, sentence)
    return found


def _object_names(document: ET.Element) -> list[str]:
    return [(each.findtext("name") or "").strip() for each in document.iterfind("object")]


def _is_zero_based(document: ET.Element) -> bool:
    corners = (each.findtext(f"bndbox/{key}") for each in document.iterfind("object") for key in ("xmin", "ymin"))
    return any(_number(corner) == 0 for corner in corners)


def _size(document: ET.Element) -> tuple[int, int] | None:
    width, height = (_number(document.findtext(f"size/{key}")) for key in ("width", "height"))
    return (int(width), int(height)) if width and height and min(width, height) > 0 else None


def _size_of(picture: Path, faults: Faults) -> tuple[int, int] | None:
    try:
        return read_size(picture)
    except ValueError as error:
        faults.refuse("unreadable-picture", picture, str(error))
        return None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _read_boxes(
    path: Path, document: ET.Element, size: tuple[int, int], names: tuple[str, ...], first_pixel: int, faults: Faults
) -> BoxRows:
    kept = []
    for number, each in enumerate(document.iterfind("object"), start=1):
        entry, name = f"object {number}", (each.findtext("name") or "").strip()
        corners = [_number(each.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
        if not name or None in corners:
            faults.refuse("corrupt-annotation", path, "wanted a name and a bndbox of four numbers", entry=entry)
            continue
        x1, y1, x2, y2 = (corner or 0.0 for corner in corners)
        box, code = clip((x1 - first_pixel, y1 - first_pixel, x2, y2), *size)
        if box is None:
            faults.mend(code, path, f"xmin, ymin, xmax, ymax = {x1:g}, {y1:g}, {x2:g}, {y2:g}", entry=entry)
        else:
            # What annotators found too hard to tell is no target, and no background either.
            is_hard = (each.findtext("difficult") or "0").strip() == "1"
            kept.append((box, names.index(name), is_hard, None))
    return make_boxes(kept)
