"""Pictures and folders as they lie on disk: hidden files passed over, loops not followed, names met in any spelling."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from service.errors import RequestError
from service.pictures.header import read_header

# What the service takes.
PICTURE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"})
# What people have besides, and must convert.
FOREIGN_SUFFIXES: Final = frozenset({".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2"})
CONVERT: Final = "convert them to JPEG, PNG or WebP (ImageMagick: `mogrify -format png *.bmp`)"

# Folders that hold one split, by what people call them.
SPLIT_NAMES: Final = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "choose": "choose",
    "test": "test",
    "testing": "test",
}
_SYSTEM_NAMES: Final = frozenset({"thumbs.db", "desktop.ini", "@eadir", "__macosx", "$recycle.bin", "lost+found"})
_TURNED: Final = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height


def is_visible(path: Path) -> bool:
    """Whether people put a file or folder there, rather than their system."""
    return not path.name.startswith(".") and path.name.lower() not in _SYSTEM_NAMES


def list_files(folder: Path, suffixes: Collection[str] = PICTURE_SUFFIXES) -> list[Path]:
    """List the visible files of a folder with these endings (in lower case), by name; none if there is no folder."""
    if not folder.is_dir():
        return []
    named = (path for path in folder.iterdir() if path.suffix.lower() in suffixes and is_visible(path))
    # A Path would sort without regard to case on Windows; a broken link is no file.
    return sorted((path for path in named if path.is_file()), key=lambda path: path.name)


def list_folders(folder: Path) -> list[Path]:
    """List the visible folders in a folder, by name; none if there is no folder. Links to one above are left out."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if is_visible(path) and path.is_dir() and not _is_loop(path))
    return sorted(found, key=lambda path: path.name)


def walk_files(folder: Path, suffixes: Collection[str] = PICTURE_SUFFIXES) -> Iterator[Path]:
    """List the visible files below a folder at any depth, folder by folder; every folder once, whatever links to it."""
    seen: set[Path] = set()
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        if (real := current.resolve()) in seen:
            continue
        seen.add(real)
        yield from list_files(current, suffixes)
        waiting += reversed(list_folders(current))


def find_splits(folder: Path) -> dict[str, Path]:
    """The folders in a folder that are named like splits, by the split: train, val, choose, test."""
    splits: dict[str, Path] = {}
    for path in list_folders(folder):
        if (split := SPLIT_NAMES.get(path.name.lower())) is not None:
            splits.setdefault(split, path)
    return {split: splits[split] for split in ("train", "val", "choose", "test") if split in splits}


def split_of_name(name: str) -> str | None:
    """The split that a file's or folder's name ends or begins with: `instances_val2017`, `train`, `valid`."""
    stem = name.lower().rstrip("0123456789")
    return next((split for word, split in SPLIT_NAMES.items() if stem in {word, f"instances_{word}"}), None)


def say_what_is_there(folder: Path) -> str:
    """Say what a folder holds in place of pictures, for a sentence about it."""
    if not folder.is_dir():
        return "no such folder"
    foreign = list_files(folder, FOREIGN_SUFFIXES)
    if foreign:
        return f"{len(foreign)} files such as {foreign[0].name}, which no part of this reads; {CONVERT}"
    return "holds no picture; wanted files ending in .jpg, .png or .webp"


def read_size(path: Path) -> tuple[int, int]:
    """Width and height of the upright picture, from its header alone.

    Raises:
        ValueError: the file cannot be read, or is no JPEG, PNG or WebP.
    """
    try:
        header = read_header(path.read_bytes())
    except (RequestError, OSError) as error:
        raise ValueError(f"{error}; wanted a JPEG, PNG or WebP picture") from error
    size = (header.width, header.height)
    return size[::-1] if header.orientation in _TURNED else size


class Finder:
    """Finds the pictures that an annotation file names, whatever became of their folders, case and accents.

    Exports keep the folders of the machine that wrote them, with slashes or backslashes, so the name decides; of
    several pictures with one name, the one with the most folders in common.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = [folder for folder in folders if folder.is_dir()]
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, name: str) -> Path | None:
        """The picture that a file calls by this name; None if there is none.

        Raises:
            ValueError: several have the name, and none is nearer than the others.
        """
        wanted = PurePosixPath(name.replace("\\", "/"))
        for folder in self._folders:
            if not {"..", "/"} & set(wanted.parts) and (folder / wanted).is_file():
                return folder / wanted
        found = self._index().get(_spell(wanted.name), [])
        if len(found) <= 1:
            return found[0] if found else None
        nearness = {path: _common_tail(path.parts, wanted.parts) for path in found}
        nearest = [path for path in found if nearness[path] == max(nearness.values())]
        if len(nearest) > 1:
            raise ValueError(f"{name!r} may be {nearest[0]} or {nearest[1]}; give each picture a name of its own")
        return nearest[0]

    def _index(self) -> dict[str, list[Path]]:
        if self._by_name is None:
            self._by_name = defaultdict(list)
            reals: set[Path] = set()
            for folder in self._folders:
                for path in walk_files(folder):
                    if path not in reals:
                        reals.add(path)
                        self._by_name[_spell(path.name)].append(path)
        return self._by_name


def _spell(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _common_tail(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    count = 0
    for mine, theirs in zip(reversed(one), reversed(other), strict=False):
        if _spell(mine) != _spell(theirs):
            break
        count += 1
    return count


def _is_loop(path: Path) -> bool:
    """Whether a folder is a link to one that holds it."""
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def read_names(folder: Path) -> tuple[str, ...]:
    """The lines of `classes.txt` (or `obj.names`, `labels.txt`) in a folder; none where there is no such file."""
    for name in ("classes.txt", "obj.names", "labels.txt"):
        path = folder / name
        if path.is_file():
            lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            return tuple(line.strip() for line in lines if line.strip())
    return ()


def relative(path: Path, root: Path) -> str:
    """Name a path from a folder, in forward slashes; whole where it lies elsewhere."""
    return Path(os.path.relpath(path, root)).as_posix() if path.is_relative_to(root) else path.as_posix()
