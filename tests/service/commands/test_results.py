from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.commands.results import (
    COLUMNS,
    Record,
    ResultFile,
    ResultFileError,
    format_record,
    keep_answers,
    make_rows,
    read_records,
    write_csv,
    write_parquet,
)
from service.errors import MissingPackage

ANSWER: Record = {"file": "a.jpg", "classes": [{"label": "Käfer", "label_id": 0, "probability": 0.5}]}
FAILURE: Record = {"file": "b.jpg", "error": {"code": "damaged_image", "detail": "cut"}}
RECORDS: list[Record] = [
    {
        "file": 'a "quoted", name.jpg',
        "model": {"name": "unihead", "version": "tiny"},
        "image": {"width": 64, "height": 48},
        "segments": [{"label": "cat", "label_id": 8, "pixels": 3072, "fraction": 1.0}],
        "detections": [{"box": [1, 2.5, 3, 4], "label": "cat", "label_id": 15, "score": 0.5}],
        "classes": [{"label": "tench", "label_id": 0, "probability": 0.25}],
        "timing_ms": {"forward": 4.0, "total": 7.5},
    },
    {"file": "b\nc.jpg", "error": {"code": "damaged_image", "detail": "it is cut"}},
    {"file": b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), "image": {"width": 1, "height": 2}, "timing_ms": {}},
]
ROWS: list[dict[str, Any]] = [
    {"file": 'a "quoted", name.jpg', "kind": "picture", "width": 64, "height": 48, "ms": 7.5},
    {
        "file": 'a "quoted", name.jpg',
        "kind": "detection",
        "label": "cat",
        "label_id": 15,
        "score": 0.5,
        "x1": 1.0,
        "y1": 2.5,
        "x2": 3.0,
        "y2": 4.0,
    },
    {"file": 'a "quoted", name.jpg', "kind": "class", "label": "tench", "label_id": 0, "score": 0.25},
    {"file": 'a "quoted", name.jpg', "kind": "segment", "label": "cat", "label_id": 8, "score": 1.0, "pixels": 3072},
    {"file": "b\nc.jpg", "kind": "picture", "error": "damaged_image", "detail": "it is cut"},
    {"file": "caf\\udce9.jpg", "kind": "picture", "width": 1, "height": 2},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with ResultFile(tmp_path / "results.jsonl") as results:
        results.append(ANSWER)
        results.append(FAILURE)
    return tmp_path / "results.jsonl"


def test_records_come_back_as_they_were(path: Path) -> None:
    assert list(read_records(path)) == [ANSWER, FAILURE]


def test_a_record_is_in_the_file_at_once(tmp_path: Path) -> None:
    with ResultFile(tmp_path / "results.jsonl") as results:
        results.append(ANSWER)
        assert list(read_records(results.path)) == [ANSWER]


def test_a_name_that_is_no_utf8_comes_back(tmp_path: Path) -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    with ResultFile(tmp_path / "results.jsonl") as results:
        results.append({"file": name})
    assert [record["file"] for record in read_records(results.path)] == [name]


@pytest.mark.parametrize("end", ['{"file":"c.j', '{"file":"c.jpg"}', "\0\0\0", '{"fi\n', "3\n"])
def test_a_last_line_that_is_cut_is_left_out(path: Path, end: str) -> None:
    with path.open("a") as file:
        file.write(end)
    assert list(read_records(path)) == [ANSWER, FAILURE]


def test_a_line_in_the_middle_that_is_none_is_named(path: Path) -> None:
    path.write_text(f"{format_record(ANSWER)}\nhello\n{format_record(FAILURE)}\n")
    with pytest.raises(ResultFileError, match="line 2 is no result"):
        list(read_records(path))


def test_going_on_keeps_answers_alone(path: Path) -> None:
    with path.open("a") as file:
        file.write('{"file":"c.j')
    kept: list[Record] = []
    keep_answers(path, kept.append)
    assert kept == [ANSWER]
    assert path.read_text() == f"{format_record(ANSWER)}\n"
    with ResultFile(path) as results:
        results.append(FAILURE)
    assert list(read_records(path)) == [ANSWER, FAILURE]
    assert [one.name for one in path.parent.iterdir()] == ["results.jsonl"]


def test_a_file_that_cannot_be_kept_stays_as_it_was(path: Path) -> None:
    before = path.read_bytes()

    def refuse(_: Record) -> None:
        raise ResultFileError("another model")

    with pytest.raises(ResultFileError):
        keep_answers(path, refuse)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["results.jsonl"]


def test_a_picture_is_a_row_and_so_is_each_thing_in_it() -> None:
    rows = [row for record in RECORDS for row in make_rows(record)]
    assert [{name: value for name, value in row.items() if value is not None} for row in rows] == ROWS


def test_csv_comes_back(tmp_path: Path) -> None:
    write_csv(tmp_path / "found.csv", RECORDS)
    with (tmp_path / "found.csv").open(encoding="utf-8", newline="") as file:
        read = [{name: COLUMNS[name](value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    assert read == ROWS
    assert [one.name for one in tmp_path.iterdir()] == ["found.csv"]


def test_parquet_comes_back_with_types(tmp_path: Path) -> None:
    from pyarrow import parquet  # noqa: PLC0415 - optional

    write_parquet(tmp_path / "found.parquet", RECORDS)
    table = parquet.read_table(tmp_path / "found.parquet")
    read = [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()]
    assert read == ROWS
    assert {field.name: str(field.type) for field in table.schema if field.name in {"file", "pixels", "score"}} == {
        "file": "string",
        "pixels": "int64",
        "score": "double",
    }
    assert [one.name for one in tmp_path.iterdir()] == ["found.parquet"]


def test_a_table_of_nothing_has_its_head(tmp_path: Path) -> None:
    write_csv(tmp_path / "found.csv", [])
    write_parquet(tmp_path / "found.parquet", [])
    assert (tmp_path / "found.csv").read_text().strip() == ",".join(COLUMNS)


def test_without_pyarrow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackage, match=r"pip install 'unihead\[parquet\]'"):
        write_parquet(tmp_path / "found.parquet", RECORDS)


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_a_table_that_is_not_finished_leaves_nothing(
    tmp_path: Path, write: Callable[[Path, Iterable[Record]], None]
) -> None:
    def read() -> Iterator[Record]:
        yield RECORDS[0]
        raise ResultFileError("line 2 is no result")

    with pytest.raises(ResultFileError):
        write(tmp_path / "found", read())
    assert list(tmp_path.iterdir()) == []
