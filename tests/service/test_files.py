from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from service.files import open_regular


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def count_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (os.mkfifo, "it is a FIFO, and has to be a regular file"),
        (Path.mkdir, "it is a directory, and has to be a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a character device, and has to be a regular file"),
        (bind, "No such device or address"),
        (lambda path: None, "No such file or directory"),  # noqa: ARG005 - nothing is made
    ],
)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_what_is_no_regular_file_is_refused_at_once_and_left_closed(
    tmp_path: Path, make: Callable[[Path], None], sentence: str, flags: int
) -> None:
    path = tmp_path / "file"
    make(path)
    before = count_open()
    with pytest.raises(OSError, match=sentence if flags == os.O_RDONLY or "directory" not in sentence else "irectory"):
        open_regular(path, flags)
    assert count_open() == before


def test_a_link_to_a_regular_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"what it holds")
    (tmp_path / "here").symlink_to("there")
    with open(open_regular(tmp_path / "here"), "rb") as file:  # noqa: PTH123 - of a descriptor
        assert file.read() == b"what it holds"
