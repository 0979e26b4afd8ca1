"""The files of a run: which pictures a list of files and folders means, and pictures with what was found drawn over."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from service.answers import render
from service.commands.local import PictureResult
from service.engine import postprocess
from service.pictures.imaging import decode
from service.pictures.limits import PictureLimits

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_QUALITY = 90


def find_pictures(paths: Iterable[Path], *, recursive: bool, leave_out: Path | None = None) -> list[Path]:
    """List pictures, each once: files as they are named, those in folders by suffix and sorted; hidden ones are not.

    Args:
        paths: files, whatever their suffix and whether they exist; and folders.
        recursive: look into folders in folders too; links are not followed.
        leave_out: a folder that is not looked into, because it is written to.
    """
    found: dict[Path, None] = {}
    for path in paths:
        pictures = _walk(path, recursive=recursive, leave_out=leave_out) if path.is_dir() else [path]
        found.update(dict.fromkeys(pictures))
    return list(found)


def _walk(folder: Path, *, recursive: bool, leave_out: Path | None) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        here = Path(where)
        kept = [one for one in sorted(folders) if not one.startswith(".") and not _is_same(here / one, leave_out)]
        folders[:] = kept if recursive else []
        for name in sorted(files):
            path = here / name
            if path.suffix.lower() in SUFFIXES and not name.startswith(".") and path.is_file():
                yield path


def _is_same(path: Path, other: Path | None) -> bool:
    return other is not None and other.exists() and path.samefile(other)


def find_overlay(folder: Path, picture: Path) -> Path:
    """Where the overlay of a picture goes: into the same folders below `folder`, as a JPEG."""
    parts = ["_" if part == ".." else part for part in picture.parts if part != picture.anchor]
    path = folder.joinpath(*parts)
    return path if path.suffix.lower() in {".jpg", ".jpeg"} else path.with_name(f"{path.name}.jpg")


def draw_overlay(picture: bytes, result: PictureResult, path: Path, limits: PictureLimits) -> None:
    """Write a picture, at its size, with mask and boxes.

    Args:
        picture: the bytes of its file.
        result: what is drawn.
        path: of the JPEG; its folder is made.
        limits: of the picture.

    Raises:
        RequestError: the picture cannot be decoded at its size.
        OSError: the file cannot be written.
    """
    found = [
        postprocess.Detection(tuple(one["box"]), one["label"], one["label_id"], one["score"])
        for one in result.parts.get("detections", ())
    ]
    names = {one["label_id"]: one["label"] for one in result.parts.get("segments", ())}
    drawn = render.overlay(decode(picture, limits), result.class_ids, found, names=names)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn).save(path, "JPEG", quality=_QUALITY)
