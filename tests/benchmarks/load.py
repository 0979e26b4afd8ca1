"""Load one server with wrk, and see what it costs: time, CPU, and memory of its whole process tree."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SCRIPT = Path(__file__).parent / "post.lua"
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_SAMPLE_S = 0.5


@dataclass(frozen=True, slots=True)
class Load:
    """What a server did under load.

    Attributes:
        per_second: requests answered.
        p50_ms, p95_ms, p99_ms: that a client waits.
        failed: requests that were not answered with 2xx.
        cpu_ms: of all its processes, a request.
        peak_mb: proportional set size of all its processes, at most.
    """

    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    failed: int
    cpu_ms: float
    peak_mb: float


@contextlib.contextmanager
def run_server(
    command: Sequence[str], port: int, ready: str, *, environment: Mapping[str, str], timeout_s: float = 120
) -> Iterator[int]:
    """Run a server until the block ends; yields its process once `ready` (a path) answers 2xx, 4xx or 405."""
    with Path(os.devnull).open("w") as nowhere:
        process = subprocess.Popen(
            list(command),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=nowhere,
            stderr=nowhere,
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{port}{ready}", timeout_s)
        yield process.pid
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            family = find_tree(process.pid)
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(2)
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server of {url} ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own server
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"{url} did not answer within {timeout_s} s")


def measure(
    pid: int, port: int, paths: Sequence[str], pictures: Sequence[Path], *, concurrency: int, seconds: float, form: bool
) -> Load:
    """Send pictures from `concurrency` connections that never pause."""
    command = ["wrk", "-t1", f"-c{concurrency}", f"-d{seconds:g}s", "--timeout", "60s", "-s", str(_SCRIPT)]
    command += [f"http://127.0.0.1:{port}", "--", "form" if form else "raw", ",".join(paths), *map(str, pictures)]
    environment = {**os.environ, "UNIHEAD_BENCH_RUN": str(time.time_ns())}
    with _watch_memory(pid) as peak:
        before = cpu_seconds(pid)
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        cpu = cpu_seconds(pid) - before
    said = json.loads(done.stdout.strip().splitlines()[-1])
    answered = said["requests"] - said["failed"]
    return Load(
        per_second=answered / said["seconds"],
        p50_ms=said["p50_ms"],
        p95_ms=said["p95_ms"],
        p99_ms=said["p99_ms"],
        failed=said["failed"],
        cpu_ms=cpu / max(answered, 1) * 1000,
        peak_mb=peak[0],
    )


def find_tree(pid: int) -> list[int]:
    """The process and all below it, deepest last."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name may hold spaces and parentheses; the parent is the second field behind it.
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    tree = [pid]
    for member in tree:
        tree += children.get(member, [])
    return tree


def cpu_seconds(pid: int) -> float:
    """CPU time of a process tree, of processes that have ended and were waited for included."""
    ticks = 0
    for member in find_tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS_A_SECOND


def memory_mb(pid: int) -> float:
    """Proportional set size of a process tree; pages that several share count once."""
    total_kb = 0
    for member in find_tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total_kb += int(line.split()[1])
    return total_kb / 1000


@contextlib.contextmanager
def _watch_memory(pid: int) -> Iterator[list[float]]:
    peak, stop = [memory_mb(pid)], threading.Event()

    def watch() -> None:
        while not stop.wait(_SAMPLE_S):
            peak[0] = max(peak[0], memory_mb(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
