"""Answers about many files as JSON lines: written one by one, read again to go on where they end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeAlias

# `file`, and what POST /predict says or `error` with `code` and `detail`.
Record: TypeAlias = dict[str, Any]


class ResultFileError(Exception):
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


def keep_answers(path: Path, keep: Callable[[Record], None]) -> None:
    """Rewrite a file without failures and without a last line that is cut, and tell of each record that stays.

    Raises:
        ResultFileError: another line is no record.
    """
    mended = path.with_name(f"{path.name}.new")
    try:
        with mended.open("w", encoding="ascii") as file:
            for record in read_records(path):
                if "error" not in record:
                    file.write(f"{format_record(record)}\n")
                    keep(record)
        mended.replace(path)
    finally:
        mended.unlink(missing_ok=True)


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
