"""Whether one commit serves as fast as another: pictures a second, CPU a picture and time to start, in turns.

An environment has a checkout installed in it (`pip install --editable`). Its round is a start, and a round of the
checkout's own `tests.benchmarks.limit`.

Run from the repository's root (needs wrk): `python -m tests.benchmarks.versions --environments OLD NEW --rounds 5`
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

from tests.benchmarks.start import Figures, format_table, make_environment, measure_in_turns, measure_start

KEYS = ("http_per_second", "http_cpu_ms", "bare_per_second", "bare_cpu_ms")


def find_checkout(environment: Path) -> Path:
    """The folder that an environment takes the package `service` from."""
    program = "import pathlib, service; print(pathlib.Path(service.__file__).parents[1])"
    return Path(_run(environment, "-P", "-c", program, folder=Path.cwd()).strip())


def measure_limit(environment: Path, seconds: int) -> Figures:
    """One round of `tests.benchmarks.limit`, by the code of the environment's checkout."""
    words = ("-m", "tests.benchmarks.limit", "--rounds", "1", "--seconds", str(seconds))
    said = json.loads(_run(environment, *words, folder=find_checkout(environment)).splitlines()[0])
    return {key: said[key] for key in KEYS}


def _run(environment: Path, *words: str, folder: Path) -> str:
    command = [str(environment.absolute() / "bin/python"), *words]
    done = subprocess.run(command, cwd=folder, env=make_environment(), stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=Path, nargs="+", required=True, help="folders of virtual environments")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=6, help="of each measurement of a round")
    options = parser.parse_args()
    for environment in options.environments:
        print(f"{environment}: {find_checkout(environment)}", flush=True)

    def measure(environment: Path) -> Figures:
        return {"start_s": measure_start(environment), **measure_limit(environment, options.seconds)}

    seen = measure_in_turns(options.environments, options.rounds, measure)
    print(*format_table(options.environments, seen), sep="\n")


if __name__ == "__main__":
    main()
