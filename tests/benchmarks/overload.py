"""Five times as many pictures as the service can take, for a minute: how those fare that it takes, refuses, or probes.

Capacity is what a closed loop of eight connections gets, with the same client in the same run; then requests come at
five times that rate whether answers come or not.

Run from the repository's root: `python -m tests.benchmarks.overload`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.golden import GOLDEN_PICTURES
from service.settings import Settings, available_cpus
from service.spawn import Spawned, spawn_service

_PROBE_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer: status, milliseconds, and what Retry-After said (empty if nothing)."""

    status: int
    took_ms: float
    retry_after: str


@dataclass(slots=True)
class Client:
    """Kept connections to one service; one request at a time on each."""

    service: Spawned
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def ask(self, request: bytes) -> Seen:
        """Send one request, read its answer."""
        started = time.perf_counter()
        if self.idle:
            reader, writer = self.idle.pop()
        else:
            reader, writer = await asyncio.open_connection(self.service.host, self.service.port)
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
        await reader.readexactly(int(headers.get("content-length", 0)))
        seen = Seen(int(head[0].split()[1]), (time.perf_counter() - started) * 1000, headers.get("retry-after", ""))
        if headers.get("connection") == "close":
            writer.close()
        else:
            self.idle.append((reader, writer))
        return seen

    def close(self) -> None:
        """Close what is kept."""
        for _, writer in self.idle:
            writer.close()


def make_request(method: str, path: str, body: bytes = b"") -> bytes:
    """Write one HTTP/1.1 request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def measure_capacity(client: Client, bodies: Sequence[bytes], *, concurrency: int, seconds: float) -> float:
    """Pictures a second of a closed loop."""
    stop = time.perf_counter() + seconds
    count = 0

    async def loop() -> None:
        nonlocal count
        while time.perf_counter() < stop:
            seen = await client.ask(make_request("POST", "/predict", _unique(bodies, count)))
            count += seen.status == 200

    started = time.perf_counter()
    await asyncio.gather(*(loop() for _ in range(concurrency)))
    return count / (time.perf_counter() - started)


async def overload(
    client: Client, bodies: Sequence[bytes], *, rate: float, seconds: float
) -> tuple[list[Seen], list[Seen], float]:
    """Send `rate` pictures a second, come what may; returns the answers, those of /healthz, and how long it took."""
    tasks: list[asyncio.Task[Seen]] = []
    probes: list[Seen] = []

    async def probe() -> None:
        while True:
            probes.append(await client.ask(make_request("GET", "/healthz")))
            await asyncio.sleep(_PROBE_EVERY_S)

    prober = asyncio.create_task(probe())
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        while len(tasks) < rate * elapsed:
            tasks.append(
                asyncio.create_task(client.ask(make_request("POST", "/predict", _unique(bodies, 10**6 + len(tasks)))))
            )
        await asyncio.sleep(0.002)
    answers = list(await asyncio.gather(*tasks))
    took = time.perf_counter() - started
    prober.cancel()
    return answers, probes, took


def _unique(bodies: Sequence[bytes], number: int) -> bytes:
    # Bytes behind the end of a picture are ignored, and make it another one for the cache.
    return bodies[number % len(bodies)] + str(number).encode()


def summarise(
    capacity: float, rate: float, answers: Sequence[Seen], probes: Sequence[Seen], took: float
) -> dict[str, Any]:
    """What the goals ask for."""
    taken = sorted(seen.took_ms for seen in answers if seen.status == 200)
    refused = sorted(seen.took_ms for seen in answers if seen.status == 503)
    health = sorted(seen.took_ms for seen in probes)
    return {
        "capacity_per_second": round(capacity, 1),
        "offered_per_second": round(len(answers) / took, 1),
        "wanted_per_second": round(rate, 1),
        "goodput_per_second": round(len(taken) / took, 1),
        "goodput_of_capacity": round(len(taken) / took / capacity, 3),
        "taken_p99_ms": round(taken[int(0.99 * len(taken))], 1),
        "refused": len(refused),
        "refused_p99_ms": round(refused[int(0.99 * len(refused))], 1) if refused else None,
        "refused_max_ms": round(refused[-1], 1) if refused else None,
        "refused_without_retry_after": sum(seen.status == 503 and not seen.retry_after for seen in answers),
        "other_statuses": sorted({seen.status for seen in answers} - {200, 503}),
        "health_p99_ms": round(health[int(0.99 * len(health))], 1),
        "health_max_ms": round(health[-1], 1),
    }


async def run(service: Spawned, bodies: Sequence[bytes], options: argparse.Namespace) -> dict[str, Any]:
    """Warm up, find the capacity, then more than that."""
    client = Client(service)
    await measure_capacity(client, bodies, concurrency=8, seconds=2)
    capacity = await measure_capacity(client, bodies, concurrency=8, seconds=options.capacity_seconds)
    rate = options.times * capacity
    answers, probes, took = await overload(client, bodies, rate=rate, seconds=options.seconds)
    client.close()
    return summarise(capacity, rate, answers, probes, took)


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Settings().model)
    parser.add_argument("--pictures", type=Path, default=GOLDEN_PICTURES)
    parser.add_argument("--threads", type=int, default=available_cpus())
    parser.add_argument("--times", type=float, default=5)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--capacity-seconds", type=float, default=15)
    options = parser.parse_args()
    bodies = [path.read_bytes() for path in sorted(options.pictures.glob("*.jpg"))]
    words = ["--model", str(options.model), "--threads", str(options.threads), "--log-level", "error"]
    with spawn_service(words) as service:
        print(json.dumps(asyncio.run(run(service, bodies, options))))


if __name__ == "__main__":
    main()
