"""How many pictures a second the gRPC port answers beside the HTTP port of the same service, in turns.

Both are asked the same by the same number of clients, each on a connection of its own: a JPEG of a few tens of
kilobytes, all outputs but the mask, no pass shared (no-cache). A round is one port, then the other, and the next round
begins with the other one. The clients are in this process, and take CPU from the service: gRPC's take more. On a busy
machine the CPU time that the service takes for a picture says more than pictures a second.

Run from the repository's root: `python -m tests.benchmarks.protocols [--rounds N] [--seconds S] [--clients N]`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import msgspec

from service.api.grpc.methods import SERVICE
from service.engine.golden import GOLDEN_PICTURES
from tests.attacks.asking import Client
from tests.grpc_service import GrpcSpawned, spawn_grpc
from tests.service.api.grpc.asking import make_message

_OUTPUTS = ("boxes", "scores", "labels", "num_detections", "class_probs")
_BODY = (GOLDEN_PICTURES / "chelsea.jpg").read_bytes()
_FRESH = ("cache-control", "no-cache")


async def ask_http(service: GrpcSpawned, until: float) -> int:
    """Ask until a time; returns how often."""
    tensor = len(_BODY).to_bytes(4, "little") + _BODY
    head = msgspec.json.encode(
        {
            "inputs": [
                {
                    "name": "image",
                    "datatype": "BYTES",
                    "shape": [1],
                    "parameters": {"binary_data_size": len(tensor)},
                }
            ],
            "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in _OUTPUTS],
        }
    )
    headers = {"Cache-Control": "no-cache", "Inference-Header-Content-Length": str(len(head))}
    count = 0
    async with Client(service.http.host, service.http.port) as client:
        while time.monotonic() < until:
            answer = await client.ask("/v2/models/unihead/infer", head + tensor, headers)
            assert answer.outcome == 200, answer
            count += 1
    return count


async def ask_grpc(service: GrpcSpawned, until: float) -> int:
    """Ask until a time; returns how often."""
    message, count = make_message(_BODY, outputs=_OUTPUTS), 0
    options = [("grpc.use_local_subchannel_pool", 1)]  # else channels of one process share a connection
    async with grpc.aio.insecure_channel(service.address, options=options) as channel:
        infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        while time.monotonic() < until:
            await infer(message, metadata=(_FRESH,), timeout=60)
            count += 1
    return count


@dataclass(frozen=True, slots=True)
class Pace:
    """What so many clients get together: pictures a second, and CPU milliseconds of the service for each."""

    per_s: float
    cpu_ms: float


def read_cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(ask: Callable[[float], Awaitable[int]], *, pid: int, clients: int, seconds: float) -> Pace:
    """Ask with so many clients for so long."""
    started, cpu_s = time.monotonic(), read_cpu_s(pid)
    count = sum(await asyncio.gather(*(ask(started + seconds) for _ in range(clients))))
    return Pace(count / (time.monotonic() - started), (read_cpu_s(pid) - cpu_s) / count * 1000)


async def compare(service: GrpcSpawned, *, rounds: int, seconds: float, clients: int) -> list[dict[str, Pace]]:
    """Measure both ports, in turns."""
    ports: dict[str, Callable[[float], Awaitable[int]]] = {
        "http": partial(ask_http, service),
        "grpc": partial(ask_grpc, service),
    }
    measure_port = partial(measure, pid=service.http.pid, clients=clients)
    for ask in ports.values():
        await measure_port(ask, seconds=1)
    found = []
    for number in range(rounds):
        order = list(ports) if number % 2 == 0 else list(reversed(ports))
        found.append({name: await measure_port(ports[name], seconds=seconds) for name in order})
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Print pictures a second of each round, and the median of their ratios."""
    parser = argparse.ArgumentParser(description="gRPC beside HTTP, in turns")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args(words)
    with spawn_grpc("--cache-max-bytes", "0") as service:
        found = asyncio.run(compare(service, rounds=options.rounds, seconds=options.seconds, clients=options.clients))
    for one in found:
        print(json.dumps({name: {"per_s": round(p.per_s, 1), "cpu_ms": round(p.cpu_ms, 2)} for name, p in one.items()}))
    pace = statistics.median(one["grpc"].per_s / one["http"].per_s for one in found)
    cpu = statistics.median(one["grpc"].cpu_ms / one["http"].cpu_ms for one in found)
    print(json.dumps({"grpc_of_http": {"per_s": round(pace, 3), "cpu_ms": round(cpu, 3)}}))


if __name__ == "__main__":
    main()
