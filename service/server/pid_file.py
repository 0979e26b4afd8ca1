"""The process's number in a file, for those who want to send it a signal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


class PidFileError(Exception):
    """The file cannot be written, or another process that still runs has written it."""


@contextlib.contextmanager
def hold_pid_file(path: Path | None) -> Iterator[None]:
    """Keep this process's number in `path` as long as the block lasts; None writes nothing.

    Raises:
        PidFileError: see there; a file that a dead process left behind is replaced.
    """
    if path is None:
        yield
        return
    with contextlib.suppress(FileNotFoundError, ValueError):
        number = read_pid(path)
        if number != os.getpid() and _runs(number):
            raise PidFileError(f"{path} says that process {number} serves already; choose another with --pid-file")
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        temporary.write_text(f"{os.getpid()}\n")
        temporary.replace(path)
    except OSError as error:
        raise PidFileError(f"{path}: the pid file cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            if read_pid(path) == os.getpid():
                path.unlink()


def read_pid(path: Path) -> int:
    """Read the process's number.

    Raises:
        FileNotFoundError: nobody serves.
        ValueError: the file holds something else.
    """
    number = int(path.read_text())
    if number <= 0:
        raise ValueError(f"{path} holds {number}, which is no process")
    return number


def _runs(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
