from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import pytest

from service.commands.result_tables import COLUMNS, MissingPackageError, make_rows, write_csv, write_parquet
from service.commands.results import Record

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
    with pytest.raises(MissingPackageError, match=r"pip install 'unihead\[parquet\]'"):
        write_parquet(tmp_path / "found.parquet", RECORDS)
