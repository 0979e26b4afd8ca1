from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.telemetry.log_writer import LineWriter


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A reading and a writing end."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def open_writer(descriptor: int, limit_bytes: int = 1000) -> LineWriter:
    return LineWriter(descriptor, describe_loss=lambda lines: f"{lines} lost\n", limit_bytes=limit_bytes)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def fill(end: int) -> int:
    """Write into a pipe until it takes no more; returns how many bytes it took."""
    os.set_blocking(end, False)
    try:
        return sum(iter(lambda: _try(end), 0))
    finally:
        os.set_blocking(end, True)


def _try(end: int) -> int:
    try:
        return os.write(end, b"x" * 4096)
    except BlockingIOError:
        return 0


def test_lines_of_several_threads_come_whole_and_in_the_order_of_each(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        writer = open_writer(file.fileno(), 10**6)

        def count(name: str) -> None:
            for i in range(500):
                writer.put(f"{name} {i}\n")

        threads = [threading.Thread(target=count, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.stop()
    lines = (tmp_path / "log").read_text().splitlines()
    for name in "abcd":
        assert [line for line in lines if line[0] == name] == [f"{name} {i}" for i in range(500)]


def test_a_line_is_written_soon_and_not_only_at_the_end(pipe: tuple[int, int]) -> None:
    writer = open_writer(pipe[1])
    writer.put("hello\n")
    assert os.read(pipe[0], 100) == b"hello\n"
    writer.put("again\n")
    assert os.read(pipe[0], 100) == b"again\n"
    writer.stop()


def test_a_pipe_that_nobody_reads_delays_nobody_and_loses_only_what_is_too_much(pipe: tuple[int, int]) -> None:
    taken = fill(pipe[1])
    writer = open_writer(pipe[1])
    counted: list[int] = []
    writer.put("first\n")
    until(lambda: not writer._lines)  # the thread has it, and waits for the pipe
    started = time.perf_counter()
    for _ in range(500):
        writer.put("123456789\n")
    assert time.perf_counter() - started < 1
    assert writer.dropped == 400
    writer.watch_dropped(counted.append)
    assert counted == [400]
    while taken:
        taken -= len(os.read(pipe[0], taken))
    text = b""
    while text.count(b"\n") < 102:
        text += os.read(pipe[0], 10**5)
    assert text == b"first\n400 lost\n" + b"123456789\n" * 100
    assert writer.dropped == 400
    writer.stop()


def test_stopping_waits_for_a_stuck_reader_no_longer_than_it_is_told(pipe: tuple[int, int]) -> None:
    fill(pipe[1])
    writer = open_writer(pipe[1])
    writer.put("never\n")
    started = time.monotonic()
    writer.stop(0.1)
    assert 0.1 <= time.monotonic() - started < 1
    os.set_blocking(pipe[0], False)
    while len(os.read(pipe[0], 10**6)) == 10**6:  # lets the thread end
        pass
    writer._thread.join(5)


@pytest.mark.parametrize("kind", ["closed", "without reader", "full"])
def test_what_cannot_be_written_is_counted_and_hurts_nobody(kind: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    if kind == "closed":
        os.close(writing)
    elif kind == "full":
        os.close(writing)
        writing = os.open("/dev/full", os.O_WRONLY)
    writer = open_writer(writing)
    for _ in range(3):
        writer.put("lost\n")
    until(lambda: writer.dropped == 3)
    writer.put("lost\n")
    until(lambda: writer.dropped == 4)
    writer.stop()
    assert writer.dropped == 4
    if kind != "closed":
        os.close(writing)


def test_a_reader_that_comes_late_finds_everything_though_the_pipe_does_not_block(pipe: tuple[int, int]) -> None:
    taken = fill(pipe[1])
    os.set_blocking(pipe[1], False)
    writer = open_writer(pipe[1])
    writer.put("patient\n")
    time.sleep(0.1)
    while taken:
        taken -= len(os.read(pipe[0], taken))
    assert os.read(pipe[0], 100) == b"patient\n"
    writer.stop()
    assert writer.dropped == 0


def test_after_a_torn_line_the_next_one_begins_on_a_line_of_its_own(pipe: tuple[int, int]) -> None:
    fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(pipe[1], False)
    writer = open_writer(pipe[1], 10**6)
    writer.put("a" * 5000 + "\n")
    until(lambda: writer._torn)
    writer._stopping.set()  # it gives up on the rest
    writer._thread.join(5)
    assert writer.dropped == 1
    assert os.read(pipe[0], 10**5) == b"a" * 4096
    assert writer._write("next\n") == 0
    assert os.read(pipe[0], 100) == b"\nnext\n"


def test_putting_while_putting_in_the_same_thread_does_not_lock_up(pipe: tuple[int, int]) -> None:
    writer = open_writer(pipe[1])
    with writer._lock:  # as a signal handler that interrupts `put`
        writer.put("inner\n")
    assert os.read(pipe[0], 100) == b"inner\n"
    writer.stop()
