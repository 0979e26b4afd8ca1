"""Answers about many files: JSON lines, written one by one and read again to go on, and one table, CSV or Parquet."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self, TypeAlias

from service.errors import MissingPackage, UniheadError

# `file`, and what POST /predict says or `error` with `code` and `detail`.
Record: TypeAlias = dict[str, Any]
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


class ResultFileError(UniheadError):
    """A file does not hold what was written before; says which line."""


def format_record(record: Record) -> str:
    """One line, without its end; names that are no UTF-8 are escaped."""
    return json.dumps(record, separators=(",", ":"))


def read_records(path: Path) -> Iterator[Record]:
    """Read records one by one; a last line that is cut is left out.

    Raises:
        ResultFileError: another line is no record.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            record = _parse(line)
            if record is not None:
                yield record
            elif file.read(1):
                raise ResultFileError(f"{path}: line {number} is no result")


def _parse(line: bytes) -> Record | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("file"), str) else None


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give another file to write, which takes the place of `path` once the block has ended well."""
    unfinished = path.with_name(f"{path.name}.new")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def keep_answers(path: Path, keep: Callable[[Record], None]) -> None:
    """Rewrite a file without failures and without a last line that is cut, and tell of each record that stays.

    Raises:
        ResultFileError: another line is no record.
    """
    with replace_file(path) as unfinished, unfinished.open("w", encoding="ascii") as file:
        for record in read_records(path):
            if "error" not in record:
                file.write(f"{format_record(record)}\n")
                keep(record)


class ResultFile:
    """Takes records; each is in the file when `append` returns, whatever happens to the process."""

    def __init__(self, path: Path) -> None:
        """Go on at the end of a file, or begin one."""
        self.path = path
        self._file = path.open("a", encoding="ascii")

    def append(self, record: Record) -> None:
        """Write one line."""
        self._file.write(f"{format_record(record)}\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


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
    with replace_file(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for record in records:
            writer.writerows(make_rows(record))


def write_parquet(path: Path, records: Iterable[Record]) -> None:
    """Write a table with types; the file is replaced when it is complete.

    Raises:
        MissingPackage: pyarrow is not installed.
    """
    arrow, parquet = import_pyarrow()
    types = {str: arrow.string(), int: arrow.int64(), float: arrow.float64()}
    schema = arrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    rows = itertools.chain.from_iterable(map(make_rows, records))
    with replace_file(path) as unfinished, parquet.ParquetWriter(unfinished, schema) as writer:
        while batch := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            writer.write_table(arrow.Table.from_pylist(batch, schema))


def import_pyarrow() -> tuple[Any, Any]:
    """Import pyarrow and its Parquet part.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - optional, and slow to import
        from pyarrow import parquet  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError as error:
        raise MissingPackage("pyarrow", "parquet") from error
    return pa, parquet
