"""The drawn pictures as sets on disk, in one piece: built in a hidden folder, given its name when all is there."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

from training.data.prepare.official import SPLITS, OfficialSet, Picture, Size
from training.data.prepare.pixels import measure, shrink
from training.data.prepare.releases import PrepareError
from training.data.prepare.selection import Selection

WriteFile: TypeAlias = Callable[[Path, bytes], object]


def check_out(out: Path) -> None:
    """Refuse a folder that has something in it.

    Raises:
        PrepareError: `out` is a file, or a folder that is not empty.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise PrepareError(f"{out}: exists already; delete it or choose another --out")


def write_sets(
    out: Path,
    sets: Sequence[OfficialSet],
    selection: Selection,
    arguments: Mapping[str, Any],
    *,
    max_side: int | None = None,
    write: WriteFile = Path.write_bytes,
) -> None:
    """Write every set below `out`, which appears as a whole or not at all.

    Args:
        out: must not exist, or be an empty folder.
        sets: one a task.
        selection: what was drawn of them.
        arguments: of the command, for the manifests; `seed` among them.
        max_side: longer side of the pictures; in pixels. Without it, files are copied byte for byte.
        write: puts bytes into a file.

    Raises:
        PrepareError: something is there already, or a picture cannot be read.
        OSError: the disk is full, or not ours to write to.
    """
    check_out(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside `out`, so that renaming stays within one file system.
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        for official in sets:
            _write_set(building / official.folder, official, selection, arguments, max_side, write)
        building.chmod(0o755)  # mkdtemp's folders are for their owner alone
        building.rename(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_set(
    folder: Path,
    official: OfficialSet,
    selection: Selection,
    arguments: Mapping[str, Any],
    max_side: int | None,
    write: WriteFile,
) -> None:
    rows: list[dict[str, Any]] = []
    for split in SPLITS:
        sizes: dict[Picture, Size] = {}
        for picture in selection.pictures[official.task, split]:
            original = official.files.read(picture.source)
            body, size = _fit_picture(original, picture, max_side)
            sizes[picture] = size
            path = official.place(picture)
            _put(folder / split / path, body, write)
            rows.append(_describe(picture, split, f"{split}/{path}", original, body))
            for name, companion in official.make_companions(picture, size).items():
                _put(folder / split / name, companion, write)
        for name, document in official.make_annotations(split, sizes).items():
            _put(folder / split / name, document, write)
    manifest = {
        "task": official.task,
        "classes": official.classes,
        "seed": arguments["seed"],
        "version": _find_version(),
        "arguments": arguments,
        "sources": official.files.list_sources(),
        "pictures": rows,
    }
    _put(folder / "manifest.json", json.dumps(manifest, indent=1).encode(), write)


def _find_version() -> str:
    try:
        return metadata.version("unihead")
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


def _fit_picture(original: bytes, picture: Picture, max_side: int | None) -> tuple[bytes, Size]:
    if max_side is not None:
        return shrink(original, picture.source, max_side)
    return original, picture.annotated_size or measure(original, picture.source)


def _describe(picture: Picture, split: str, path: str, original: bytes, body: bytes) -> dict[str, Any]:
    return {
        "id": picture.id,
        "split": split,
        "classes": picture.classes,
        "file": path,
        "sha256": hashlib.sha256(body).hexdigest(),
        "source": picture.source,
        "source_sha256": hashlib.sha256(original).hexdigest(),
    }


def _put(path: Path, body: bytes, write: WriteFile) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, body)
