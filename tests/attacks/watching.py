"""What can be seen of a running service from outside: memory, files, threads, and its own counters."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from service.commands.spawn import Spawned

_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a process.

    Attributes:
        memory_mb: resident.
        peak_mb: resident at most, since the last reset.
        files: open descriptors.
        threads: of the process.
    """

    memory_mb: float
    peak_mb: float
    files: int
    threads: int


def look(pid: int) -> Look:
    """Read /proc once."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    return Look(
        memory_mb=int(status["VmRSS"].split()[0]) / 1024,
        peak_mb=int(status["VmHWM"].split()[0]) / 1024,
        files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        threads=int(status["Threads"]),
    )


def reset_peak(pid: int) -> None:
    """Let `Look.peak_mb` begin anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def scrape(service: Spawned) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Read /metrics: values by name and sorted labels."""
    connection = http.client.HTTPConnection(service.host, service.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def answered(counters: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> dict[tuple[str, int], int]:
    """From `scrape`: requests answered, by route and status."""
    found: dict[tuple[str, int], int] = {}
    for (name, labels), value in counters.items():
        if name == "unihead_http_requests_total":
            label = dict(labels)
            key = label["route"], int(label["status"])
            found[key] = found.get(key, 0) + int(value)
    return found


@contextlib.asynccontextmanager
async def watch(pid: int) -> AsyncIterator[list[Look]]:
    """Look again and again while the block runs."""
    looks = [look(pid)]

    async def go_on() -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            looks.append(look(pid))

    task = asyncio.ensure_future(go_on())
    try:
        yield looks
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        looks.append(look(pid))
