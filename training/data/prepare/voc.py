"""PASCAL VOC 2012 segmentation: pictures and the palette masks of the same name."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from training.config import Task
from training.data.prepare.official import OfficialSet, Picture, Size
from training.data.prepare.releases import PrepareError
from training.data.prepare.sources import Files
from training.data.taxonomy import VOC, VOID

_ROOT = "VOCdevkit/VOC2012"


class VocSet(OfficialSet):
    """`mini_voc_seg`: `<id>.jpg` with `<id>.png` beside it."""

    task = Task.SEGMENTATION
    folder = "mini_voc_seg"
    classes: tuple[str, ...] = VOC[1:]  # every picture shows background

    def __init__(self, files: Files) -> None:
        self.files = files

    def list_pictures(self, split: str) -> Sequence[Picture]:
        """Read the masks that the official list of the split names; a picture shows what its mask holds.

        Raises:
            PrepareError: the list or a mask is missing or not what it should be.
        """
        listed = self.files.read_index(f"{_ROOT}/ImageSets/Segmentation/{split}.txt").decode().split()
        for name in listed:
            if PurePosixPath(name).name != name:
                raise PrepareError(f"{_ROOT}/ImageSets/Segmentation/{split}.txt: {name!r} is no picture id")
        return [self._describe(name) for name in sorted(listed)]

    def _describe(self, picture_id: str) -> Picture:
        with self._open_mask(picture_id) as mask:
            values = np.flatnonzero(np.bincount(np.asarray(mask).ravel(), minlength=VOID + 1)).tolist()
            size = Size(*mask.size)
        if strange := [value for value in values if value >= len(VOC) and value != VOID]:
            wanted = f"classes 0..{len(VOC) - 1} or void {VOID}"
            raise PrepareError(f"{_mask_path(picture_id)}: the mask holds {strange}; wanted {wanted}")
        shown = tuple(VOC[value] for value in values if 0 < value < len(VOC))
        return Picture(f"{_ROOT}/JPEGImages/{picture_id}.jpg", shown, size)

    def _open_mask(self, picture_id: str) -> Image.Image:
        path = _mask_path(picture_id)
        try:
            mask = Image.open(io.BytesIO(self.files.read(path)), formats=["PNG"])
            mask.load()
        except (OSError, SyntaxError) as error:  # Pillow reports a damaged chunk as a SyntaxError
            raise PrepareError(f"{path}: {error}; wanted a palette PNG of class ids") from error
        if mask.mode != "P":
            raise PrepareError(f"{path}: the mask's mode is {mask.mode}; wanted P, a palette PNG of class ids")
        return mask

    def place(self, picture: Picture) -> str:
        """Pictures and masks share one folder."""
        return picture.name

    def make_companions(self, picture: Picture, size: Size) -> Mapping[str, bytes]:
        """The official mask byte for byte, or its nearest-neighbour reduction with the same palette."""
        if size == picture.annotated_size:
            return {f"{picture.id}.png": self.files.read(_mask_path(picture.id))}
        body = io.BytesIO()
        with self._open_mask(picture.id) as mask:
            mask.resize((size.width, size.height), Image.Resampling.NEAREST).save(body, "PNG", optimize=True)
        return {f"{picture.id}.png": body.getvalue()}


def _mask_path(picture_id: str) -> str:
    return f"{_ROOT}/SegmentationClass/{picture_id}.png"
