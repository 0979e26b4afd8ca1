"""How a request's milliseconds grow with the picture, and how a service's pictures a second grow with clients.

Pictures of 0.3 to 24 megapixels are one shipped photograph, enlarged, which is smoother than a real one of that size
and a smaller JPEG. Each is asked about alone, one after another, sizes in turns.

Run from the repository's root: `python -m tests.benchmarks.growth` (writes docs/data/growth.jsonl)
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import io
import json
import platform
import statistics
import subprocess
import time
from pathlib import Path

from PIL import Image

from service.commands.spawn import Spawned, spawn_service
from service.engine.golden import GOLDEN_PICTURES
from service.machine import available_cpus
from tests.benchmarks.load import ROOT, measure

MEGAPIXELS = (0.3, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0)
CONCURRENCY = (1, 2, 4, 8, 16, 32, 64)


def make_picture(megapixels: float) -> bytes:
    """Enlarge a shipped photograph to so many million pixels of 3 : 2; JPEG of quality 90."""
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    with Image.open(GOLDEN_PICTURES / "coffee.jpg") as picture:
        enlarged = picture.resize((round(height * 1.5), height), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    enlarged.save(file, "JPEG", quality=90)
    return file.getvalue()


def ask(connection: http.client.HTTPConnection, body: bytes) -> dict[str, float]:
    """Ask for all three tasks; returns the stages as Server-Timing has them, and what the client waited (`client`)."""
    started = time.perf_counter()
    connection.request("POST", "/predict", body, {"Cache-Control": "no-cache"})
    response = connection.getresponse()
    response.read()
    waited = (time.perf_counter() - started) * 1000
    if response.status != http.client.OK:
        raise RuntimeError(f"status {response.status}")
    words = (entry.split(";dur=") for entry in (response.getheader("Server-Timing") or "").split(", "))
    return {**{name: float(value) for name, value in words}, "client": waited}


def grow_with_size(service: Spawned, rounds: int) -> list[dict[str, object]]:
    """One row a size: medians over rounds."""
    bodies = {size: make_picture(size) for size in MEGAPIXELS}
    seen: dict[float, list[dict[str, float]]] = {size: [] for size in MEGAPIXELS}
    connection = http.client.HTTPConnection(service.host, service.port, timeout=60)
    for number in range(rounds + 2):
        for size, body in bodies.items():
            answer = ask(connection, body)
            if number > 1:  # the first two warm up
                seen[size].append(answer)
    connection.close()
    return [
        {
            "megapixels": size,
            "kilobytes": round(len(bodies[size]) / 1000),
            **{f"{name}_ms": round(statistics.median(one[name] for one in answers), 2) for name in answers[0]},
        }
        for size, answers in seen.items()
    ]


def grow_with_clients(service: Spawned, seconds: float) -> list[dict[str, object]]:
    """One row a number of connections, from wrk and the shipped pictures, every picture an own pass."""
    pictures = sorted(GOLDEN_PICTURES.glob("*.jpg"))
    rows: list[dict[str, object]] = []
    for concurrency in CONCURRENCY:
        load = measure(
            service.pid, service.port, ("/predict",), pictures, concurrency=concurrency, seconds=seconds, form=False
        )
        rows.append(
            {"concurrency": concurrency, **{key: round(value, 2) for key, value in dataclasses.asdict(load).items()}}
        )
    return rows


def main() -> None:
    """Write one line of JSON a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--threads", type=int, default=available_cpus())
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "data" / "growth.jsonl")
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    words = ["--threads", str(options.threads), "--log-level", "error", "--queue-limit", "256"]
    with spawn_service(words) as service:
        rows = grow_with_size(service, options.rounds) + grow_with_clients(service, options.seconds)
    with options.out.open("w") as out:
        for row in rows:
            line = {
                **row,
                "cpus": options.threads,
                "commit": commit.stdout.strip(),
                "python": platform.python_version(),
            }
            out.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
