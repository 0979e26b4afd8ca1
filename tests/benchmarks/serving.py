"""unihead beside LitServe, BentoML and Ray Serve: the same model file and pipeline code, the same cores, in turns.

"three networks" is what a user would run otherwise (`tests.benchmarks.peers.three_networks`).

Run from the repository's root: `make bench`, which installs the peers into an environment of their own. Appends
one line of JSON a measurement to docs/data/benchmarks.jsonl.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from service.machine import available_cpus
from tests.benchmarks.load import ROOT, measure, run_server

GOLDEN = ROOT / "service" / "models" / "golden"
TRAFFIC = {"predict": ("/predict",), "all three": ("/segment", "/detect", "/classify")}


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """How to start a server on a port with a number of workers.

    Attributes:
        command: of the port, the workers, and the paths that will be asked for.
        ready: path that answers once it serves.
        home: which environment it is installed in; empty: that of the service.
        form: whether it wants the picture in a form.
        traffic: what it can be asked for.
        environment: beside the usual one.
    """

    command: Callable[[str, int, int, Sequence[str]], list[str]]
    ready: str
    home: str = ""
    form: bool = False
    traffic: tuple[str, ...] = ("predict", "all three")
    environment: Callable[[int], dict[str, str]] = lambda _: {}


PEERS = {
    "unihead": Peer(
        lambda python, port, workers, _: [
            python,
            "-c",
            "from service.cli import main; main()",
            "--port",
            str(port),
            "--threads",
            str(workers),
            "--log-level",
            "warning",
            "--queue-limit",
            "256",
        ],
        "/readyz",
    ),
    "litserve": Peer(
        lambda python, port, workers, paths: [
            python,
            "-m",
            "tests.benchmarks.peers.litserve_app",
            str(port),
            str(workers),
            *(path[1:] for path in paths),
        ],
        "/health",
        home="peers",
        form=True,
    ),
    "bentoml": Peer(
        lambda python, port, _, __: [
            str(Path(python).parent / "bentoml"),
            "serve",
            "tests.benchmarks.peers.bentoml_app:Unihead",
            "--port",
            str(port),
            "--host",
            "127.0.0.1",
        ],
        "/readyz",
        home="peers",
        environment=lambda workers: {"BENTOML_DO_NOT_TRACK": "True", "UNIHEAD_BENCH_WORKERS": str(workers)},
    ),
    "three networks": Peer(
        lambda python, port, _, __: [
            python,
            "-m",
            "tests.benchmarks.peers.three_networks",
            "serve",
            str(Path(python).parents[1] / "three_networks"),
            str(port),
        ],
        "/readyz",
        home="peers",
        traffic=("all three",),
    ),
    "ray": Peer(
        lambda python, port, workers, _: [python, "-m", "tests.benchmarks.peers.ray_app", str(port), str(workers)],
        "/-/healthz",
        home="peers",
        environment=lambda _: {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
    ),
    "mlserver": Peer(
        lambda python, port, workers, _: [python, "-m", "tests.benchmarks.peers.mlserver_app", str(port), str(workers)],
        "/v2/health/ready",
        home="mlserver",
    ),
}


def main() -> None:
    """Measure every peer in every round, and write a line for each concurrency and kind of traffic."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--environments", default=".venv", help="of the peers: their folders begin so (default: %(default)s)"
    )
    parser.add_argument("--peers", default=",".join(PEERS), help="which, separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--concurrency", default="1,8,32")
    parser.add_argument("--workers", type=int, default=available_cpus(), help="worker processes or passes at once")
    parser.add_argument("--pictures", type=Path, default=GOLDEN)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "data" / "benchmarks.jsonl")
    options = parser.parse_args()
    pictures = sorted(options.pictures.glob("*.jpg"))
    environment = {"UNIHEAD_MODEL": str(options.model)} if options.model else {}
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with options.out.open("a") as out:
        for number in range(options.rounds):
            for name in options.peers.split(","):
                peer, port = PEERS[name], 8400
                home = f"{options.environments}-{peer.home}/bin/python"
                python = str(Path(home).absolute()) if peer.home else sys.executable
                for traffic, paths in ((traffic, TRAFFIC[traffic]) for traffic in peer.traffic):
                    command = peer.command(python, port, options.workers, paths)
                    own = {**environment, **peer.environment(options.workers)}
                    with run_server(command, port, peer.ready, environment=own) as pid:
                        time.sleep(1)
                        measure(pid, port, paths, pictures, concurrency=2, seconds=2, form=peer.form)  # warm
                        for concurrency in (int(word) for word in options.concurrency.split(",")):
                            load = measure(
                                pid,
                                port,
                                paths,
                                pictures,
                                concurrency=concurrency,
                                seconds=options.seconds,
                                form=peer.form,
                            )
                            line = {
                                "server": name,
                                "traffic": traffic,
                                "concurrency": concurrency,
                                "round": number,
                                **{key: round(value, 2) for key, value in dataclasses.asdict(load).items()},
                                "workers": options.workers,
                                "cpus": len(os.sched_getaffinity(0)),
                                "commit": commit.stdout.strip(),
                                "python": platform.python_version(),
                            }
                            out.write(json.dumps(line) + "\n")
                            out.flush()
                            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
