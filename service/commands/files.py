"""The files of a run: which pictures a list of files and folders means, and pictures with what was found drawn over."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from service.answers import render
from service.commands.local import PictureError, PictureResult
from service.engine import postprocess
from service.errors import UnsupportedImage
from service.files import open_regular
from service.pictures.header import name_format, sniff_kind
from service.pictures.imaging import decode
from service.pictures.limits import PictureLimits

# Stands for `-`. No file is read by this name.
STDIN = Path("/dev/stdin")
# More than a picture within the limits of pixels has, and less than would hurt.
MAX_FILE_BYTES = 2**28
_KEPT = frozenset({".jpg", ".jpeg"})
# What is named so is a picture even where it is damaged; others are where their content is.
SUFFIXES = _KEPT | {".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo", ".png", ".apng", ".webp"}
_BEGINNING = 2048
_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Found:
    """What a list of files and folders means.

    Attributes:
        pictures: each once, in their order.
        left_out: what else lies in the folders, and why it is no picture.
    """

    pictures: list[Path]
    left_out: dict[Path, str] = field(default_factory=dict)


def find_pictures(paths: Iterable[Path], *, recursive: bool, leave_out: Path | None = None) -> Found:
    """List pictures: files as they are named, those in folders by ending or content and sorted; hidden ones are not.

    Args:
        paths: files, whatever their ending and whether they exist; and folders.
        recursive: look into folders in folders too; links are not followed.
        leave_out: a folder that is not looked into, because it is written to.
    """
    pictures: dict[Path, None] = {}
    left_out: dict[Path, str] = {}
    for path in paths:
        if not os.path.isdir(path):  # noqa: PTH112 - which never raises
            pictures[path] = None
            continue
        for one, why_not in _walk(path, recursive=recursive, leave_out=leave_out):
            if why_not is None:
                pictures[one] = None
            else:
                left_out[one] = why_not
    return Found(list(pictures), left_out)


def _walk(folder: Path, *, recursive: bool, leave_out: Path | None) -> Iterator[tuple[Path, str | None]]:
    """What lies in a folder, and why it is no picture; a folder that cannot be read is one that will fail."""
    failures: list[OSError] = []
    for where, folders, files in os.walk(folder, onerror=failures.append):
        here = Path(where)
        kept = [one for one in sorted(folders) if not one.startswith(".") and not _is_same(here / one, leave_out)]
        folders[:] = kept if recursive else []
        for name in sorted(files):
            if not name.startswith("."):
                yield here / name, _find_why_not(here / name)
        if not recursive:
            yield from ((here / one, "a folder, which --recursive looks into") for one in kept)
    yield from ((Path(failure.filename), None) for failure in failures)


def _find_why_not(path: Path) -> str | None:
    """Why a file in a folder is no picture; None if it is one, or is called so."""
    if not os.path.isfile(path):  # noqa: PTH113 - which never raises
        return "no regular file"
    if path.suffix.lower() in SUFFIXES:
        return None
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            beginning = file.read(_BEGINNING)
    except OSError as error:
        return error.strerror or str(error)
    try:
        sniff_kind(beginning or b"\0")
    except UnsupportedImage:
        return name_format(beginning) or "no picture"
    return None


def _is_same(path: Path, other: Path | None) -> bool:
    return other is not None and other.exists() and path.samefile(other)


def name_picture(picture: Path) -> str:
    """What results call a picture."""
    return "-" if picture == STDIN else str(picture)


def read_picture(picture: Path) -> bytes:
    """Return the bytes of a picture's file, or of stdin.

    Raises:
        PictureError: it cannot be read, has none or too many of them, or is a device, a FIFO or a folder.
    """
    try:
        with os.fdopen(_open_stdin() if picture == STDIN else open_regular(picture), "rb") as file:
            body = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise PictureError("unreadable_file", error.strerror or str(error)) from error
    if len(body) > MAX_FILE_BYTES:
        raise PictureError("body_too_large", f"the file has more than {MAX_FILE_BYTES} bytes")
    if not body:
        raise PictureError("empty_body", "the file has no bytes")
    return body


def _open_stdin() -> int:
    """Duplicate the descriptor of stdin: a file, a pipe or a socket."""
    handle = os.dup(0)
    mode = os.fstat(handle).st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        os.close(handle)
        raise OSError(None, "stdin is a terminal or another device, and has to be a file or a pipe")
    return handle


def find_overlay(folder: Path, picture: Path) -> Path:
    """Where the overlay of a picture goes: into the same folders below `folder`, as a JPEG, and no two to one place.

    JPEGs keep their names, and others get one more ending. Where both could meet (`x` and `x.jpg`, `x.png` and
    `x.png.jpg`) the rarer gets yet another. `_` stands for `..`, `__` for the root and `_.jpg` for stdin; what is
    called so itself gets two more of them.
    """
    if picture == STDIN:
        return folder / "_.jpg"
    *parts, name = [re.sub(r"^(_+)(?=\.|$)", r"\1__", part) for part in picture.parts if part != picture.anchor]
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - of a name
    inner = os.path.splitext(stem)[1]  # noqa: PTH122 - of a name
    if suffix.lower() not in SUFFIXES:
        name = f"{name}.jpg.jpg"
    elif suffix.lower() not in _KEPT or inner.lower() in SUFFIXES:
        name = f"{name}.jpg"
    root = ["__"] if picture.anchor else []
    return folder.joinpath(*root, *("_" if part == ".." else part for part in parts), name)


def draw_overlay(picture: bytes, result: PictureResult, path: Path, limits: PictureLimits) -> None:
    """Write a picture, at its size, with mask and boxes.

    Args:
        picture: the bytes of its file.
        result: what is drawn.
        path: of the JPEG; its folder is made.
        limits: of the picture.

    Raises:
        PictureError: the result is about a picture of another size.
        RequestError: the picture cannot be decoded at its size.
        OSError: the file cannot be written.
    """
    found = [
        postprocess.Detection(tuple(one["box"]), one["label"], one["label_id"], one["score"])
        for one in result.parts.get("detections", ())
    ]
    names = {one["label_id"]: one["label"] for one in result.parts.get("segments", ())}
    pixels = decode(picture, limits)
    height, width, _ = pixels.shape
    if result.parts["image"] != {"width": width, "height": height}:
        raise PictureError("unreadable_answer", f"the answer is not about a picture of {width} x {height} pixels")
    drawn = render.overlay(pixels, result.class_ids, found, names=names)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn).save(path, "JPEG", quality=_QUALITY)
