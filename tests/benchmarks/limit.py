"""How near HTTP comes to the bare pipeline on the same cores: pictures a second, CPU a picture, the wait of one client.

A round is the bare pipeline in a process of its own, then wrk at eight connections and at one, then /segment at eight.

Run from the repository's root (needs wrk): `python -m tests.benchmarks.limit`
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

from service.commands.bench import measure_alone, measure_bare
from service.commands.spawn import Spawned, spawn_service
from service.engine.golden import GOLDEN_PICTURES
from service.machine import available_cpus, keep_freed_memory
from service.rollout.loading import load_verified
from service.settings import Settings
from tests.benchmarks.load import ROOT, measure

PICTURES = sorted(GOLDEN_PICTURES.glob("*.jpg"))


def measure_pipeline(threads: int, seconds: int) -> dict[str, float]:
    """Without HTTP: all CPUs, and one picture that is alone."""
    keep_freed_memory()
    settings = Settings(threads=threads)
    engine = load_verified(settings.model, settings)
    bodies = [path.read_bytes() for path in PICTURES]
    bare = measure_bare(engine, bodies, workers=threads, seconds=seconds)
    return {**bare, "alone_ms": measure_alone(engine, bodies, seconds=seconds / 2)["total"]}


def measure_round(service: Spawned, threads: int, seconds: int) -> dict[str, float]:
    """One round, as ratios and what they are of."""
    command = [sys.executable, "-m", "tests.benchmarks.limit", "--bare", "--threads", str(threads)]
    command += ["--seconds", str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    bare = json.loads(done.stdout)
    half = max(1, round(seconds / 2))  # wrk counts whole seconds
    plan = (("/predict", 8, seconds), ("/predict", 1, half), ("/segment", 8, half))
    eight, one, segment = (
        measure(service.pid, service.port, (path,), PICTURES, concurrency=clients, seconds=length, form=False)
        for path, clients, length in plan
    )
    return {
        "bare_per_second": bare["per_second"],
        "bare_cpu_ms": bare["cpu_ms"],
        "http_per_second": eight.per_second,
        "http_cpu_ms": eight.cpu_ms,
        "per_second_ratio": eight.per_second / bare["per_second"],
        "cpu_ratio": eight.cpu_ms / bare["cpu_ms"],
        "alone_p50_ratio": one.p50_ms / bare["alone_ms"],
        "segment_ratio": segment.per_second / eight.per_second,
    }


def main() -> None:
    """Print one line of JSON a round, and their medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=available_cpus())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--bare", action="store_true", help="the bare pipeline alone, as rounds ask for it")
    options = parser.parse_args()
    if options.bare:
        sys.stdout.write(json.dumps(measure_pipeline(options.threads, options.seconds)) + "\n")
        return
    rounds = []
    with spawn_service(["--threads", str(options.threads), "--log-level", "error"]) as service:
        for _ in range(options.rounds):
            rounds.append(measure_round(service, options.threads, options.seconds))
            sys.stdout.write(json.dumps({key: round(value, 3) for key, value in rounds[-1].items()}) + "\n")
            sys.stdout.flush()
    medians = {key: round(statistics.median(one[key] for one in rounds), 3) for key in rounds[0]}
    sys.stdout.write(json.dumps({"median": medians}) + "\n")


if __name__ == "__main__":
    main()
