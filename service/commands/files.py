"""Which pictures a list of files and folders means."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


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
