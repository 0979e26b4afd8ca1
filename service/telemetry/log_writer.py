"""Lines to a file descriptor that may be full, closed or read by nobody: putting one never waits and never fails."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable

# Seconds that lines are gathered for one write: waking a thread for each would cost requests more than formatting it.
_GATHER_S = 0.02
_LIMIT_BYTES = 4 * 2**20
_RETRY_S = 0.05
_NEWLINE = ord("\n")


class LineWriter:
    """A thread that writes what has been put; what it cannot write, or not soon enough, is dropped and counted.

    Attributes:
        dropped: lines so far.
    """

    def __init__(
        self, descriptor: int, *, describe_loss: Callable[[int], str], limit_bytes: int = _LIMIT_BYTES
    ) -> None:
        """Start the thread.

        Args:
            descriptor: where lines go; never closed.
            describe_loss: makes the line that says, once writing works again, how many were dropped.
            limit_bytes: of lines that wait to be written; what comes beyond is dropped.
        """
        self.dropped = 0
        self._descriptor = descriptor
        self._describe_loss = describe_loss
        self._limit_bytes = limit_bytes
        self._count: Callable[[int], object] = lambda _: None
        self._lines: list[str] = []
        self._held_bytes = 0
        self._told = 0
        self._torn = False
        # Reentrant, as the queue is: a signal handler or a finalizer may log while its thread is just doing so.
        self._lock = threading.RLock()
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._asleep = True
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Take one line, with its newline at the end; from any thread."""
        with self._lock:
            if self._held_bytes + len(line) > self._limit_bytes:
                self.drop(1)
                return
            self._lines.append(line)
            self._held_bytes += len(line)
            if self._asleep:
                self._asleep = False
                self._wake.put(None)

    def drop(self, lines: int) -> None:
        """Count lines that will not be written."""
        with self._lock:
            self.dropped += lines
            self._count(lines)

    def watch_dropped(self, count: Callable[[int], object]) -> None:
        """Tell `count` of lines that were and will be dropped."""
        with self._lock:
            self._count = count
            if self.dropped:
                count(self.dropped)

    def stop(self, patience_s: float = 1) -> None:
        """Write what is left, unless that takes too long, and end the thread."""
        self._stopping.set()
        self._wake.put(None)
        self._thread.join(patience_s)

    def _work(self) -> None:
        while True:
            self._wake.get()
            self._stopping.wait(_GATHER_S)
            with self._lock:
                lines, self._lines, self._held_bytes, self._asleep = self._lines, [], 0, True
                lost = self.dropped - self._told
            if lost and not self._write(self._describe_loss(lost)):
                self._told += lost
            if missing := self._write("".join(lines)):
                self.drop(missing)
            if self._stopping.is_set():
                return

    def _write(self, text: str) -> int:
        """Write lines, and return how many are lost; where a file is full the first of them may be there in part."""
        rest = memoryview((f"\n{text}" if self._torn else text).encode("utf-8", "backslashreplace"))
        while rest:
            try:
                written = os.write(self._descriptor, rest)
            except BlockingIOError:  # another program that shares a terminal or a pipe has made it so
                if self._stopping.wait(_RETRY_S):
                    break
                continue
            except OSError:
                break
            # The rest of a torn line never comes: the next begins on a line of its own.
            self._torn = rest[written - 1] != _NEWLINE
            rest = rest[written:]
        return rest.tobytes().count(b"\n")
