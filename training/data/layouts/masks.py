"""Pictures and masks: side by side in one folder, or in `images/` and `masks/`; and what a mask file holds."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.pictures.imaging import UInt8Array
from training.data.layouts.faults import Faults
from training.data.layouts.files import (
    find_splits,
    list_files,
    read_names,
    say_what_is_there,
    walk_files,
)
from training.data.layouts.readings import FoundSet, Labelled, Layout, Place, Reading

_IMAGE_FOLDERS: Final = ("images", "image", "imgs", "img", "JPEGImages", "pictures", "data")
_MASK_FOLDERS: Final = ("masks", "mask", "labels", "annotations", "SegmentationClass", "gt")
_MASK_ENDINGS: Final = ("_mask", "-mask", "_masks", "_seg", "_label", "_labels", "_gt")
_JPEG_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
_ONE_BYTE: Final = 256


def find_masks(folder: Path) -> FoundSet | None:
    """Find pictures with masks beside them, or in a folder of their own, as a whole or by split."""
    if (pair := _folder_pair(folder)) is not None:
        images, masks = pair
        splits = find_splits(images)
        if splits:
            by_name = {path.name: path for path in find_splits(masks).values()}
            places = {
                split: Place(folder, (inner, by_name.get(inner.name, masks / inner.name)))
                for split, inner in splits.items()
            }
            return FoundSet(Layout.MASKS, folder, places)
        return FoundSet(Layout.MASKS, folder, {"all": Place(folder, pair)})
    places = {}
    for split, inner in find_splits(folder).items():
        if (pair := _folder_pair(inner)) is not None:
            places[split] = Place(folder, pair)
        elif _looks_paired(inner):
            places[split] = Place(folder, (inner,))
    if places:  # a split that lost its masks is still one
        for split, inner in find_splits(folder).items():
            if split not in places and list_files(inner):
                places[split] = Place(folder, (inner,))
        return FoundSet(Layout.MASKS, folder, {name: places[name] for name in find_splits(folder) if name in places})
    return FoundSet(Layout.MASKS, folder, {"all": Place(folder, (folder,))}) if _looks_paired(folder) else None


def read_masks(place: Place, faults: Faults) -> Reading:
    """Pair pictures with masks by name; names of values come from `classes.txt` or Roboflow's `_classes.csv`."""
    if len(place.pictures) == 1:
        pictures, masks, twins = _split_beside(list_files(place.pictures[0]))
    else:
        images, folder = place.pictures
        pictures = _by_key(images, walk_files(images))
        masks = {_strip(key): path for key, path in _by_key(folder, walk_files(folder)).items()}
        twins = {}
    for mask in (*twins.values(), *(path for path in masks.values() if path.suffix.lower() in _JPEG_SUFFIXES)):
        sentence = "the mask is a JPEG, which changes the values; save it as PNG of class ids, one grey value a class"
        faults.refuse("mask-not-palette", mask, sentence)
    for key in sorted(masks.keys() - pictures.keys()):
        faults.refuse("mask-without-picture", masks[key], f"wanted {Path(key).name}.jpg beside it")
    paired = []
    for key, path in sorted(pictures.items()):
        if key in masks:
            paired.append(Labelled(path, mask=masks[key]))
        elif key not in twins:
            faults.refuse("missing-mask", path, f"wanted a mask {Path(key).name}.png")
    if not paired:
        faults.refuse("empty-split", place.pictures[0], say_what_is_there(place.pictures[0]))
    return Reading(place.pictures[0], _read_names(place), tuple(paired))


def read_values(path: Path) -> UInt8Array:
    """Decode a mask file into the values that it stores, without looking a palette up: [H, W], 0..255.

    Raises:
        ValueError: it cannot be decoded, or stores colours in place of values; says what to do.
    """
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            mode, values = picture.mode, np.asarray(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{error}; wanted a palette PNG of class ids") from error
    return stored_values(mode, values)


def stored_values(mode: str, values: NDArray[Any]) -> UInt8Array:
    """What a mask of this mode (as Pillow names it) stores, as bytes.

    Raises:
        ValueError: colours, or values beyond 255; says what to do.
    """
    if mode in {"P", "L"}:  # never convert(): the palette would turn ids into colours
        return values.astype(np.uint8, copy=False)
    if mode == "1" or (mode.startswith("I") and values.max(initial=0) < _ONE_BYTE):  # 1 or 16 bits a value
        return values.astype(np.uint8)
    what = "values beyond 255" if mode.startswith("I") else "colours"
    raise ValueError(
        f"the mask's mode is {mode}, it stores {what}; wanted P or L, one class id a pixel: save it as a palette PNG"
    )


def _folder_pair(folder: Path) -> tuple[Path, Path] | None:
    images = next((folder / name for name in _IMAGE_FOLDERS if (folder / name).is_dir()), None)
    masks = next((folder / name for name in _MASK_FOLDERS if (folder / name).is_dir()), None)
    if images is None or masks is None or not any(True for _ in walk_files(masks, {".png", *_JPEG_SUFFIXES})):
        return None
    return images, masks


def _looks_paired(folder: Path) -> bool:
    """Whether a folder's pictures come in pairs: a.jpg with a.png, a_mask.png or (a fault to be told) a.jpeg."""
    pictures, masks, twins = _split_beside(list_files(folder))
    return bool((pictures.keys() & masks.keys()) or twins)


def _split_beside(files: list[Path]) -> tuple[dict[str, Path], dict[str, Path], dict[str, Path]]:
    """Tell pictures from masks in one folder, by their stems.

    Returns:
        Pictures, masks, and JPEGs that lie where a mask should.
    """
    marked = {path for path in files if _strip(path.stem) != path.stem}
    stems = {path.stem for path in files if path not in marked and path.suffix.lower() != ".png"}
    plain = [path for path in files if path not in marked and (path.suffix.lower() != ".png" or not stems)]
    masks = {_strip(path.stem): path for path in marked}
    masks |= {path.stem: path for path in files if path not in marked and path not in plain}
    pictures: dict[str, Path] = {}
    twins: dict[str, Path] = {}
    for path in sorted(plain, key=lambda path: (path.suffix.lower() != ".jpg", path.name)):
        (twins if path.stem in pictures else pictures)[path.stem] = path
    return pictures, masks, twins


def _by_key(folder: Path, paths: Iterable[Path]) -> dict[str, Path]:
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}


def _strip(stem: str) -> str:
    ending = next((ending for ending in _MASK_ENDINGS if stem.lower().endswith(ending)), "")
    return stem[: len(stem) - len(ending)]


def _read_names(place: Place) -> tuple[str | None, ...]:
    for folder in dict.fromkeys((place.root, *place.pictures, *(path.parent for path in place.pictures))):
        if names := read_names(folder):
            return names
        if (path := folder / "_classes.csv").is_file():
            rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
            by_value = {int(row[0]): row[1].strip() for row in rows if len(row) > 1 and row[0].strip().isdigit()}
            return tuple(by_value.get(value) for value in range(max(by_value, default=-1) + 1))
    return ()
