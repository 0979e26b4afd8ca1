"""Files: hashed whatever their size, never half written; and where those lie that can be made again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

CACHE_VARIABLE: Final = "UNIHEAD_CACHE_DIR"
NO_CACHE: Final = "off"


@contextmanager
def open_whole(path: Path, *, suffix: str = ".tmp") -> Iterator[BinaryIO]:
    """Open a file beside the target, flush it to the disk, rename it: a kill leaves the old file or the new one, whole.

    Args:
        path: of the target; nothing is written there when the context ends with an error.
        suffix: of the file beside it; two processes that write the same target need different ones.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(path.name + suffix)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text in UTF-8, as `open_whole` does."""
    with open_whole(path) as file:
        file.write(text.encode())


def hash_file(path: Path) -> str:
    """SHA-256 of a file of any size, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def find_cache_folder(name: str) -> Path | None:
    """Where things are kept that can be made again, by their kind; the folder may not exist.

    Returns:
        `name` in UNIHEAD_CACHE_DIR, else in `unihead` in XDG_CACHE_HOME or `~/.cache`; None if UNIHEAD_CACHE_DIR is
        `off`, or nobody knows the user's home.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return None if chosen == NO_CACHE else Path(chosen) / name
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unihead" / name
    except RuntimeError:
        return None
