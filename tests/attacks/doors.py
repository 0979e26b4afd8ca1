"""Goal 9: while it takes hostile files, the service starts no program and connects to nobody; strace looks on."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_CALLS = "connect,execve,execveat,fork,vfork"
_ATTACH_S = 20


def has_strace() -> bool:
    """Whether strace is here (Debian package strace)."""
    return shutil.which("strace") is not None


@contextlib.contextmanager
def trace(pid: int, log: Path) -> Iterator[list[str]]:
    """Note every program that a process starts and every connection that it opens; the list is full after the block."""
    command = ["strace", "-f", "-qq", "-e", f"trace={_CALLS}", "-e", "signal=none", "-o", str(log), "-p", str(pid)]
    found: list[str] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            _wait_until_traced(pid, process)
            yield found
        finally:
            process.terminate()
            process.wait()
    found += [line for line in log.read_text().splitlines() if "(" in line]


def _wait_until_traced(pid: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _ATTACH_S
    while time.monotonic() < deadline and process.poll() is None:
        statuses = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
        if statuses and not any("TracerPid:\t0\n" in status for status in statuses):
            return
        time.sleep(0.05)
    raise RuntimeError("strace cannot attach to the service; it may not be allowed here")
