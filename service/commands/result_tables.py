"""Answers about many files as one table, CSV or Parquet: a row a picture, and a row for each thing found in it."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from service.commands.results import Record

# What is found has label, label_id and score; detections have a box, segments pixels. The row of a picture has its
# size, its milliseconds in all, and what went wrong.
COLUMNS = {
    "file": str,
    "kind": str,
    "label": str,
    "label_id": int,
    "score": float,
    "x1": float,
    "y1": float,
    "x2": float,
    "y2": float,
    "pixels": int,
    "width": int,
    "height": int,
    "ms": float,
    "error": str,
    "detail": str,
}
_ROWS_AT_ONCE = 10_000


class MissingPackageError(Exception):
    """Something optional is not installed; says what brings it."""


def make_rows(record: Record) -> Iterator[dict[str, Any]]:
    """Rows of one picture, with the columns that say something; names that are no UTF-8 are escaped."""
    file = record["file"].encode("utf-8", "backslashreplace").decode()
    image, error = record.get("image", {}), record.get("error", {})
    yield {
        "file": file,
        "kind": "picture",
        "width": image.get("width"),
        "height": image.get("height"),
        "ms": record.get("timing_ms", {}).get("total"),
        "error": error.get("code"),
        "detail": error.get("detail"),
    }
    for one in record.get("detections", ()):
        box = dict(zip(("x1", "y1", "x2", "y2"), map(float, one["box"]), strict=True))
        yield {"file": file, "kind": "detection", **_name(one), "score": one["score"], **box}
    for one in record.get("classes", ()):
        yield {"file": file, "kind": "class", **_name(one), "score": one["probability"]}
    for one in record.get("segments", ()):
        yield {"file": file, "kind": "segment", **_name(one), "score": one["fraction"], "pixels": one["pixels"]}


def _name(one: dict[str, Any]) -> dict[str, Any]:
    return {"label": one["label"], "label_id": one["label_id"]}


def write_csv(path: Path, records: Iterable[Record]) -> None:
    """Write a table with a head, UTF-8; the file is replaced when it is complete."""
    unfinished = path.with_name(f"{path.name}.new")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for record in records:
            writer.writerows(make_rows(record))
    unfinished.replace(path)


def write_parquet(path: Path, records: Iterable[Record]) -> None:
    """Write a table with types; the file is replaced when it is complete.

    Raises:
        MissingPackageError: pyarrow is not installed.
    """
    arrow, parquet = import_pyarrow()
    types = {str: arrow.string(), int: arrow.int64(), float: arrow.float64()}
    schema = arrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    rows = itertools.chain.from_iterable(map(make_rows, records))
    unfinished = path.with_name(f"{path.name}.new")
    with parquet.ParquetWriter(unfinished, schema) as writer:
        while batch := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            writer.write_table(arrow.Table.from_pylist(batch, schema))
    unfinished.replace(path)


def import_pyarrow() -> tuple[Any, Any]:
    """Import pyarrow and its Parquet part.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - optional, and slow to import
        from pyarrow import parquet  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError as error:
        raise MissingPackageError("pyarrow is not installed; pip install 'unihead[parquet]' brings it") from error
    return pa, parquet
