from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.server.pid_file import PidFileError, hold_pid_file, read_pid


def test_the_number_is_there_while_the_block_lasts(tmp_path: Path) -> None:
    path = tmp_path / "unihead.pid"
    with hold_pid_file(path):
        assert read_pid(path) == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "unihead.pid"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for left in (f"{dead.pid}\n", "", "nonsense"):
        path.write_text(left)
        with hold_pid_file(path):
            assert read_pid(path) == os.getpid()


def test_a_living_process_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "unihead.pid"
    path.write_text(f"{os.getppid()}\n")
    with pytest.raises(PidFileError, match="serves already; choose another with --pid-file"), hold_pid_file(path):
        pass
    assert read_pid(path) == os.getppid()


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(PidFileError, match="cannot be written: No such file"), hold_pid_file(tmp_path / "no" / "pid"):
        pass


def test_nothing_is_written_without_a_path() -> None:
    with hold_pid_file(None):
        pass


@pytest.mark.parametrize("text", ["-1", "0"])
def test_numbers_that_mean_many_processes_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text)
    with pytest.raises(ValueError, match="no process"):
        read_pid(tmp_path / "pid")
