"""Seconds from the start of a service to its first 200 on `/readyz`, environment by environment in turns.

A start is a new process of `ENVIRONMENT/bin/unihead-serve`, which is all that is asked of an environment: one with an
older commit installed in it is measured by the same code.

Run from the repository's root: `python -m tests.benchmarks.start --environments OLD NEW --rounds 5`
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

HOST = "127.0.0.1"
_REQUEST = f"GET /readyz HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
_POLL_S = 0.005
_START_S = 60
_STOP_S = 30

Figures = dict[str, float]


def measure_start(environment: Path) -> float:
    """Start the service of an environment, and stop it once it is ready.

    Args:
        environment: a virtual environment with unihead in it.

    Returns:
        seconds from before the process was made to the first 200.

    Raises:
        RuntimeError: the service ends, or is not ready in time.
    """
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    words = ["--host", HOST, "--port", str(port), "--log-level", "error"]
    started = time.perf_counter()
    with subprocess.Popen([environment.absolute() / "bin/unihead-serve", *words], env=make_environment()) as process:
        try:
            while not _is_ready(port):
                if process.poll() is not None:
                    raise RuntimeError(f"the service of {environment} ended with {process.returncode}")
                if time.perf_counter() - started > _START_S:
                    raise RuntimeError(f"the service of {environment} was not ready within {_START_S} s")
                time.sleep(_POLL_S)
            return time.perf_counter() - started
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
            process.kill()


def make_environment() -> dict[str, str]:
    """Variables without those that change what a service does or which checkout it runs."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("UNIHEAD_", "PYTHONPATH"))}


def _is_ready(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=_START_S) as connection:
        connection.sendall(_REQUEST)
        return connection.recv(64).startswith(b"HTTP/1.1 200")
    return False


def measure_in_turns(
    environments: Sequence[Path], rounds: int, measure: Callable[[Path], Figures]
) -> list[list[Figures]]:
    """Measure every environment in every round; prints one line of JSON each.

    Every other round goes backwards: a machine that grows slower meanwhile is unfair to none of two.

    Returns:
        a list an environment, of the figures of its rounds.
    """
    seen: list[list[Figures]] = [[] for _ in environments]
    for environment in environments:
        measure_start(environment)  # it compiles modules and fills the system's cache of files
    for number in range(rounds):
        turns = list(zip(environments, seen, strict=True))
        for environment, figures in reversed(turns) if number % 2 else turns:
            figures.append(measure(environment))
            line = {key: round(value, 3) for key, value in figures[-1].items()}
            print(json.dumps({"environment": str(environment), "round": number, **line}), flush=True)
    return seen


def format_table(environments: Sequence[Path], seen: Sequence[Sequence[Figures]]) -> Iterator[str]:
    """Lines of Markdown: a row a figure and environment, with its median as a multiple of the first environment's."""
    yield "| figure | environment | rounds | median | spread | of the first |"
    yield "|---|---|---|---|---|---|"
    for key in seen[0][0]:
        first = statistics.median(figures[key] for figures in seen[0])
        for environment, rounds in zip(environments, seen, strict=True):
            values = [figures[key] for figures in rounds]
            median = statistics.median(values)
            shown = ", ".join(f"{value:.4g}" for value in values)
            spread = (max(values) - min(values)) / median
            yield f"| {key} | {environment} | {shown} | {median:.4g} | {spread:.1%} | {median / first:.3f} |"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=Path, nargs="+", required=True, help="folders of virtual environments")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    seen = measure_in_turns(options.environments, options.rounds, lambda one: {"start_s": measure_start(one)})
    print(*format_table(options.environments, seen), sep="\n")


if __name__ == "__main__":
    main()
