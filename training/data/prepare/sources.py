"""The files of an official release by their official path, whether they lie in folders or still in archives.

Nothing is unpacked to disk: a tar and a zip are read where they lie, a .tgz, which has no index, is held in memory.
"""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from training.data.prepare.releases import Part, PrepareError, Release, describe_layout
from training.files import hash_file

# One part of a release, unpacked or still packed: what reads each file, by its path with forward slashes.
Tree: TypeAlias = Mapping[str, Callable[[], bytes]]


def open_folder(root: Path, folder: str) -> Tree:
    """Open an unpacked part, the files below `root / folder`, by their paths relative to `root`."""
    found = (path for path in (root / folder).rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes for path in found}


def open_archive(path: Path) -> Tree:
    """Open a .zip, .tar or .tgz.

    Raises:
        PrepareError: the archive is damaged or cut short.
    """
    try:
        if path.suffix == ".zip":
            return _open_zip(path)
        return _open_tar(path) if path.suffix == ".tar" else _load_tgz(path)
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise PrepareError(f"{path}: {error}; the archive is damaged or cut short, download it again") from error


def _open_zip(path: Path) -> Tree:
    archive = zipfile.ZipFile(path)
    names = (name for name in archive.namelist() if not name.endswith("/"))
    return {name: partial(archive.read, name) for name in names}


def _open_tar(path: Path) -> Tree:
    with tarfile.open(path, "r:") as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
    return {_tidy(one.name): partial(_read_range, path, one.offset_data, one.size) for one in members}


def _read_range(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(start)
        return stream.read(length)


def _load_tgz(path: Path) -> Tree:
    contents: dict[str, bytes] = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if stream := archive.extractfile(member) if member.isfile() else None:
                contents[_tidy(member.name)] = stream.read()
    return {name: partial(bytes, body) for name, body in contents.items()}


def _tidy(name: str) -> str:
    return PurePosixPath(name).as_posix()  # "./VOCdevkit/x" is the same file as "VOCdevkit/x"


class Files:
    """All files of one release, and a record of the archives and index files that the set depends on."""

    def __init__(self, trees: Mapping[str, Tree], archives: Sequence[Path]) -> None:
        self._trees = trees  # by the folder that every path in the tree begins with
        self._archives = archives
        self._indexes: dict[str, str] = {}

    def names(self) -> Sequence[str]:
        """Paths of all files, sorted."""
        return sorted(name for tree in self._trees.values() for name in tree)

    def read(self, name: str) -> bytes:
        """Content of a file by its official path.

        Raises:
            PrepareError: the release as it lies here has no such file, or it cannot be read.
        """
        try:
            tree = next(tree for folder, tree in self._trees.items() if name.startswith(f"{folder}/"))
            return tree[name]()
        except (StopIteration, KeyError, FileNotFoundError) as error:
            raise PrepareError(f"{name}: no such file in the release; unpack or download it again") from error
        except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise PrepareError(f"{name}: cannot be read: {error}; unpack or download it again") from error

    def read_index(self, name: str) -> bytes:
        """Content of a file that lists or annotates pictures; its SHA-256 goes into the manifest."""
        body = self.read(name)
        self._indexes[name] = hashlib.sha256(body).hexdigest()
        return body

    def list_sources(self) -> list[dict[str, str]]:
        """Name and SHA-256 of each archive that was opened and each index file that was read."""
        archives = [{"file": path.name, "sha256": hash_file(path)} for path in self._archives]
        return archives + [{"file": name, "sha256": digest} for name, digest in sorted(self._indexes.items())]


def open_release(root: Path, release: Release) -> Files:
    """Find a release in `root`, or in one of the folders in it; a folder goes before an archive of the same part.

    Raises:
        PrepareError: a part is missing, or an archive is damaged.
    """
    if not root.is_dir():
        raise PrepareError(f"{root}: no such folder; wanted one with the releases: {describe_layout(release)}")
    for base in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        if all(_has(base, part) for part in release.parts):
            return _open_parts(base, release.parts)
    missing = [part for part in release.parts if not _has(root, part)]
    lacking = ", ".join(f"{part.folder}/ or {part.archive}" for part in missing)
    raise PrepareError(f"{root}: has no {lacking}; expected layout: {describe_layout(release)}")


def _has(base: Path, part: Part) -> bool:
    return (base / part.folder).is_dir() or (base / part.archive).is_file()


def _open_parts(base: Path, parts: Sequence[Part]) -> Files:
    packed = [part for part in parts if not (base / part.folder).is_dir()]
    trees = {part.folder: open_folder(base, part.folder) for part in parts if part not in packed}
    trees |= {part.folder: open_archive(base / part.archive) for part in packed}
    return Files(trees, [base / part.archive for part in packed])
