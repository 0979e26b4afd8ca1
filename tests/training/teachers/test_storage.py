import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.training.teachers.fakes import make_config
from training.config import Task
from training.data.datasets import ClassificationSample, DataError, DataSets
from training.data.feed.dataset import TaskDataset
from training.data.taxonomy import MINI
from training.teachers import storage
from training.teachers.storage import Float16Array, compute_key, load_or_compute

COUNT = 10


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PIECE", 4)


class Computed:
    """Arrays of different shapes that tell their number; remembers which pieces it was asked for."""

    def __init__(self, *, fail_from: int = COUNT) -> None:
        self.pieces: list[tuple[int, int]] = []
        self._fail_from = fail_from

    def __call__(self, start: int, end: int) -> Sequence[Float16Array]:
        if start >= self._fail_from:
            raise KeyboardInterrupt
        self.pieces.append((start, end))
        return [np.full((1 + number % 3, 2, 5), number, dtype=np.float16) for number in range(start, end)]


def check(arrays: Sequence[Float16Array]) -> None:
    assert len(arrays) == COUNT
    for number, array in enumerate(arrays):
        np.testing.assert_array_equal(array, np.full((1 + number % 3, 2, 5), number, dtype=np.float16))


def is_mapped(array: Float16Array) -> bool:
    base: object = array
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    return isinstance(base, np.memmap)


def test_pieces_are_computed_once_and_mapped_from_then_on(tmp_path: Path) -> None:
    first, second = Computed(), Computed()
    for compute, pieces in ((first, [(0, 4), (4, 8), (8, 10)]), (second, [])):
        arrays = load_or_compute(tmp_path / "new", "key", COUNT, compute)
        check(arrays)
        assert all(is_mapped(array) for array in arrays)
        assert compute.pieces == pieces


def test_without_a_folder_all_is_in_memory(tmp_path: Path) -> None:
    arrays = load_or_compute(None, "", COUNT, Computed())
    check(arrays)
    assert not any(is_mapped(array) for array in arrays)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_killed_goes_on_with_its_piece(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        load_or_compute(tmp_path, "key", COUNT, Computed(fail_from=8))
    compute = Computed()
    check(load_or_compute(tmp_path, "key", COUNT, compute))
    assert compute.pieces == [(8, 10)]


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


@pytest.mark.parametrize("spoil", [cut_short, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", ["4.npy", "4.shapes.npy"])
def test_a_piece_that_is_not_whole_is_computed_again(
    tmp_path: Path, spoil: Callable[[Path], object], name: str
) -> None:
    load_or_compute(tmp_path, "key", COUNT, Computed())
    spoil(tmp_path / "key" / name)
    for pieces in ([(4, 8)], []):
        compute = Computed()
        check(load_or_compute(tmp_path, "key", COUNT, compute))
        assert compute.pieces == pieces


def test_a_write_that_fails_leaves_no_piece_and_the_arrays_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: object, *_: object) -> None:
        file.write(b"\x93NUMPY")  # type: ignore[attr-defined]  # an open file
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", fail)
        check(load_or_compute(tmp_path, "key", COUNT, Computed()))
    assert list((tmp_path / "key").iterdir()) == []
    (tmp_path / "file").touch()
    check(load_or_compute(tmp_path / "file", "key", COUNT, Computed()))


def test_what_was_used_longest_ago_is_removed(tmp_path: Path) -> None:
    for age, key in ((3, "old"), (2, "older"), (4, "oldest")):
        load_or_compute(tmp_path, key, COUNT, Computed())
        os.utime(tmp_path / key, (1e9 - age, 1e9 - age))
    size = sum(path.stat().st_size for path in (tmp_path / "old").iterdir())
    load_or_compute(tmp_path, "oldest", COUNT, Computed(), most_bytes=2 * size)
    assert {path.name for path in tmp_path.iterdir()} == {"old", "older", "oldest"}
    load_or_compute(tmp_path, "new", COUNT, Computed(), most_bytes=2 * size)
    assert {path.name for path in tmp_path.iterdir()} == {"older", "oldest", "new"}


def test_the_key_is_that_of_the_pictures_files_and_words(sets: DataSets, tmp_path: Path) -> None:
    def key(count: int, *words: str) -> str:
        return compute_key(TaskDataset(sets.split(Task.DETECTION).train[:count], make_config(), MINI), *words)

    assert key(3, "a") == key(3, "a")
    assert len({key(3, "a"), key(3, "b"), key(2, "a")}) == 3
    gone = TaskDataset([ClassificationSample(tmp_path / "gone.jpg", 0)], make_config(), MINI)
    with pytest.raises(DataError, match=r"gone\.jpg: No such file"):
        compute_key(gone)
