"""Imagenette v2 160 px: a folder of pictures a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from training.config import Task
from training.data.prepare.official import OfficialSet, Picture
from training.data.prepare.releases import PrepareError
from training.data.prepare.sources import Files
from training.data.taxonomy import IMAGENETTE

_ROOT = "imagenette2-160"
_SUFFIXES = {".jpg", ".jpeg", ".png"}


class ImagenetteSet(OfficialSet):
    """`imagenette_160`: `<wnid>/<file>`."""

    task = Task.CLASSIFICATION
    folder = "imagenette_160"
    classes: tuple[str, ...] = tuple(IMAGENETTE)

    def __init__(self, files: Files) -> None:
        self.files = files

    def list_pictures(self, split: str) -> Sequence[Picture]:
        """List the pictures in the folders of the split that are named after a class.

        Raises:
            PrepareError: there is none.
        """
        found = []
        for name in self.files.names():
            parts = PurePosixPath(name).parts
            is_picture = PurePosixPath(name).suffix.lower() in _SUFFIXES and not parts[-1].startswith(".")
            if is_picture and parts[:2] == (_ROOT, split) and len(parts) == 4 and parts[2] in self.classes:  # noqa: PLR2004 - root, split, class, file
                found.append(Picture(name, (parts[2],)))
        if not found:
            raise PrepareError(f"{_ROOT}/{split}: holds no picture; wanted <wnid>/*.JPEG for {', '.join(self.classes)}")
        return sorted(found, key=lambda picture: picture.id)

    def place(self, picture: Picture) -> str:
        """One folder a class."""
        return f"{picture.classes[0]}/{picture.name}"
