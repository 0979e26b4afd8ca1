"""Pictures with what was found drawn over them, as files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from service.answers import render
from service.commands.local import Answered
from service.engine import postprocess
from service.pictures.imaging import decode
from service.pictures.limits import PictureLimits

_QUALITY = 90


def find_overlay(folder: Path, picture: Path) -> Path:
    """Where the overlay of a picture goes: into the same folders below `folder`, as a JPEG."""
    parts = ["_" if part == ".." else part for part in picture.parts if part != picture.anchor]
    path = folder.joinpath(*parts)
    return path if path.suffix.lower() in {".jpg", ".jpeg"} else path.with_name(f"{path.name}.jpg")


def draw_overlay(picture: bytes, answered: Answered, path: Path, limits: PictureLimits) -> None:
    """Write a picture, at its size, with mask and boxes.

    Args:
        picture: the bytes of its file.
        answered: what is drawn.
        path: of the JPEG; its folder is made.
        limits: of the picture.

    Raises:
        RequestError: the picture cannot be decoded at its size.
        OSError: the file cannot be written.
    """
    found = [
        postprocess.Detection(tuple(one["box"]), one["label"], one["label_id"], one["score"])
        for one in answered.parts.get("detections", ())
    ]
    names = {one["label_id"]: one["label"] for one in answered.parts.get("segments", ())}
    drawn = render.overlay(decode(picture, limits), answered.class_ids, found, names=names)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn).save(path, "JPEG", quality=_QUALITY)
