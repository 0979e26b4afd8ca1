import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.data.cli_running import run_data
from tests.training.data.doctor.clean_sets import write_clean_sets
from training.data.doctor import verdicts as verdicts_module
from training.data.doctor.examine import examine
from training.data.doctor.pictures import PictureFacts, inspect_mask, inspect_picture
from training.data.doctor.report import format_json
from training.data.doctor.verdicts import DATABASE_NAME, MASKS, PICTURES, Verdicts
from training.data.layouts.outlines import Outlines
from training.files import CACHE_VARIABLE

MINUTE_NS = 60 * 10**9
DAY_NS = 86_400 * 10**9


def later() -> int:
    """A clock by which nothing was written just now."""
    return time.time_ns() + MINUTE_NS


@pytest.fixture
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A sound picture, one that is cut short, one with an odd mode, and one that is not there."""
    folder = tmp_path / "files"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.jpg")
    Image.fromarray(pixels).save(folder / "b.png")
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:900])
    Image.fromarray(pixels).convert("CMYK").save(folder / "c.jpg")
    return [folder / name for name in ("a.jpg", "b.png", "c.jpg", "d.jpg")]


class Looked:
    """Looks as the doctor does, and remembers at what."""

    def __init__(self, folder: Path, pool: Executor, clock: Callable[[], int] = later, *, most: int = 1000) -> None:
        self._verdicts = Verdicts(folder, pool, clock=clock, most=most)
        self.at: list[str] = []

    def __call__(self, files: Sequence[Path]) -> list[PictureFacts]:
        def inspect(path: Path) -> PictureFacts:
            self.at.append(path.name)
            return inspect_picture(path)

        self.at = []
        with self._verdicts as verdicts:
            return list(verdicts.inspect(replace(PICTURES, inspect=inspect), files))


def assert_same(found: Sequence[PictureFacts], expected: Sequence[PictureFacts]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.sha256, one.size, one.faults) == (other.sha256, other.size, other.faults)
        assert (one.thumbnail is None) == (other.thumbnail is None)
        if one.thumbnail is not None:
            np.testing.assert_array_equal(one.thumbnail, other.thumbnail)
            assert one.thumbnail.dtype == np.uint8


def test_a_file_that_has_not_changed_is_not_looked_at_again(files: list[Path], tmp_path: Path, pool: Executor) -> None:
    first, second = Looked(tmp_path, pool), Looked(tmp_path, pool)
    expected = [inspect_picture(path) for path in files]
    assert_same(first(files), expected)
    assert sorted(first.at) == ["a.jpg", "b.png", "c.jpg", "d.jpg"]
    assert_same(second(files), expected)
    assert second.at == ["d.jpg"]  # what is not there has no time of change


def rewrite(path: Path) -> None:
    """Other bytes, as many, and with the old time: only the time of the change itself is new."""
    status = path.stat()
    body = bytearray(path.read_bytes())
    body[-10] ^= 1
    path.write_bytes(body)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_by_copy(path: Path) -> None:
    """A copy with the old time in place of the file."""
    shutil.copy2(path, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


@pytest.mark.parametrize("change", [rewrite, replace_by_copy, lambda path: path.write_bytes(b"none"), os.utime])
def test_a_file_that_has_changed_in_any_way_is_looked_at_again(
    files: list[Path], tmp_path: Path, pool: Executor, change: Callable[[Path], object]
) -> None:
    Looked(tmp_path, pool)(files[:2])
    change(files[0])
    again = Looked(tmp_path, pool)
    assert_same(again(files[:2]), [inspect_picture(path) for path in files[:2]])
    assert again.at == ["a.jpg"]


def test_of_what_was_written_just_now_nothing_is_kept(files: list[Path], tmp_path: Path, pool: Executor) -> None:
    Looked(tmp_path, pool, time.time_ns)(files[:1])
    again = Looked(tmp_path, pool)
    again(files[:1])
    assert again.at == ["a.jpg"]


def test_of_what_changes_while_it_is_looked_at_nothing_is_kept(
    files: list[Path], tmp_path: Path, pool: Executor
) -> None:
    def inspect(path: Path) -> PictureFacts:
        found = inspect_picture(path)
        rewrite(path)
        return found

    with Verdicts(tmp_path, pool, clock=later) as verdicts:
        list(verdicts.inspect(replace(PICTURES, inspect=inspect), files[:1]))
    again = Looked(tmp_path, pool)
    again(files[:1])
    assert again.at == ["a.jpg"]


def test_other_code_looks_again(
    files: list[Path], tmp_path: Path, pool: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    Looked(tmp_path, pool)(files[:1])
    monkeypatch.setattr(verdicts_module, "_version", lambda: "another")
    again = Looked(tmp_path, pool)
    again(files[:1])
    assert again.at == ["a.jpg"]


def test_masks_are_kept_apart_from_pictures_and_outlines_are_not_kept(tmp_path: Path, pool: Executor) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[0, 7], [255, 7]], dtype=np.uint8)).save(path)
    drawn = Outlines(8, 8, ((3, ((1.0, 1.0, 7.0, 1.0, 7.0, 7.0),)),))
    expected = [inspect_mask(path), inspect_mask(drawn)]
    for _ in range(2):
        with Verdicts(tmp_path, pool, clock=later) as verdicts:
            places: list[Path | Outlines] = [path, drawn]
            found = list(verdicts.inspect(MASKS, places))
            (picture,) = verdicts.inspect(PICTURES, [path])
        assert [(each.size, each.pixels_by_value, each.faults) for each in found] == [
            (each.size, each.pixels_by_value, each.faults) for each in expected
        ]
        assert picture.size == (2, 2)
    with sqlite3.connect(tmp_path / DATABASE_NAME) as database:
        assert database.execute("SELECT count(*) FROM verdicts").fetchone() == (2,)
    database.close()


def spoil_rows(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE verdicts SET facts = facts || ' '")
    database.close()


def overwrite(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def another_table(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE verdicts (path TEXT)")
    database.close()


def folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [spoil_rows, overwrite, cut_short, empty, another_table, folder_in_its_place],
    ids=lambda each: each.__name__,
)
def test_a_cache_that_is_damaged_is_none(
    files: list[Path], tmp_path: Path, pool: Executor, spoil: Callable[[Path], None]
) -> None:
    Looked(tmp_path, pool)(files)
    spoil(tmp_path / DATABASE_NAME)
    again = Looked(tmp_path, pool)
    assert_same(again(files[:3]), [inspect_picture(path) for path in files[:3]])
    assert sorted(again.at) == ["a.jpg", "b.png", "c.jpg"]


def test_a_cache_that_cannot_be_written_is_none(files: list[Path], tmp_path: Path, pool: Executor) -> None:
    (tmp_path / "file").touch()
    looked = Looked(tmp_path / "file" / "folder", pool)
    assert_same(looked(files), [inspect_picture(path) for path in files])


def test_what_was_of_no_use_for_longest_goes(files: list[Path], tmp_path: Path, pool: Executor) -> None:
    for day, name in enumerate(("a.jpg", "b.png", "a.jpg", "c.jpg"), start=1):
        path = next(path for path in files if path.name == name)
        Looked(tmp_path, pool, lambda day=day: later() + 2 * day * DAY_NS, most=2)([path])  # type: ignore[misc]
    again = Looked(tmp_path, pool)
    again(files[:3])
    assert again.at == ["b.png"]


def test_the_doctor_says_the_same_of_known_files_and_finds_what_is_new(tmp_path: Path) -> None:
    root, cache = write_clean_sets(tmp_path / "sets"), tmp_path / "cache"
    for path in root.rglob("*"):
        os.utime(path, (1e9, 1e9))
    expected = format_json(examine(root))
    assert [format_json(examine(root, cache=cache)) for _ in range(2)] == [expected] * 2
    victim = next((root / "imagenette_160" / "train").rglob("*.JPEG"))
    victim.write_bytes(victim.read_bytes()[:200])
    assert format_json(examine(root, cache=cache)) == format_json(examine(root)) != expected


def test_the_command_keeps_verdicts_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "caches"))
    root = write_clean_sets(tmp_path / "sets")
    assert run_data("doctor", root, "--no-cache") == 0
    assert not (tmp_path / "caches").exists()
    assert run_data("doctor", root) == 0
    assert (tmp_path / "caches" / "doctor" / DATABASE_NAME).is_file()
