"""Every teacher asked about every picture of a folder, on all cores, but not what an earlier run has asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from service.errors import RequestError
from service.pictures.imaging import decode
from training.data.labelling.faults import LabellingError
from training.data.labelling.journal import Journal
from training.data.labelling.network import Network
from training.data.layouts.files import find_splits, read_size, relative, say_what_is_there, walk_files


@dataclass(frozen=True, slots=True)
class Asked:
    """The pictures of a folder.

    Attributes:
        sizes: width and height of each that was answered about, by its path from the folder, sorted; in pixels.
        refused: why the others have no answer, by path.
    """

    sizes: Mapping[str, tuple[int, int]]
    refused: Mapping[str, str]


def find_pictures(folder: Path) -> list[str]:
    """List the pictures below a folder by their paths from it, in forward slashes, sorted.

    Raises:
        LabellingError: there is none, or the folder holds several splits.
    """
    if splits := find_splits(folder):
        inner = " and ".join(path.name for path in splits.values())
        raise LabellingError(
            f"{folder}: holds {inner}, which are not to be mixed; label them one by one: {next(iter(splits.values()))}"
        )
    found = sorted(relative(path, folder) for path in walk_files(folder))
    if not found:
        raise LabellingError(f"{folder}: {say_what_is_there(folder)}")
    return found


def ask(
    folder: Path,
    pictures: Sequence[str],
    teachers: Sequence[tuple[Network, Journal]],
    *,
    jobs: int,
    progress: Callable[[int, int], None],
) -> Asked:
    """Ask, and keep the answers in the journals.

    Threads: most of the time goes by in ONNX Runtime and decoders, which let go of Python's lock; two were no slower
    than two processes. A pass has one thread, so that answers do not depend on how many run at once.

    Args:
        folder: of the pictures.
        pictures: paths from there.
        teachers: each with its open journal.
        jobs: pictures at once.
        progress: is told how many of how many are done.

    Raises:
        LabellingError: a teacher's answer is not what its description says.
        OSError: an answer cannot be written.
    """
    sizes: dict[str, tuple[int, int]] = {}
    refused: dict[str, str] = {}
    pool = ThreadPoolExecutor(jobs)
    try:
        done = pool.map(lambda picture: _ask_about(folder, picture, teachers), pictures)
        for count, (picture, outcome) in enumerate(zip(pictures, done, strict=True), start=1):
            if isinstance(outcome, str):
                refused[picture] = outcome
            else:
                sizes[picture] = outcome
            progress(count, len(pictures))
    finally:
        pool.shutdown(cancel_futures=True)
    return Asked(sizes, refused)


def _ask_about(folder: Path, picture: str, teachers: Sequence[tuple[Network, Journal]]) -> tuple[int, int] | str:
    """Width and height of a picture, or why there is no answer."""
    path = folder / picture
    try:
        body = path.read_bytes()
        sha256 = hashlib.sha256(body).hexdigest()
        lacking = [(network, journal) for network, journal in teachers if not journal.has(picture, sha256)]
        if not lacking:
            return read_size(path)
        image = decode(body)
    except (RequestError, OSError, ValueError) as error:
        return str(error)
    for network, journal in lacking:
        try:
            answer = network.answer(image)
        except LabellingError as error:
            raise LabellingError(f"{error} (about {path})") from error
        journal.add(picture, sha256, answer)
    return image.shape[1], image.shape[0]
