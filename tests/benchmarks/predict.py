"""How near `unihead-predict` comes to the bare pipeline on the same cores, on 500 pictures of varied quality.

A round is the bare pipeline, then the command into a folder, each in a process of its own; loading the model is not
counted. On a busy machine the ratio of CPU time says more than that of pictures a second.

Run from the repository's root: `python -m tests.benchmarks.predict`
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from service.commands.bench import measure_bare
from service.engine.golden import GOLDEN_PICTURES
from service.machine import available_cpus, keep_freed_memory
from service.rollout.loading import load_verified
from service.settings import Settings
from tests.benchmarks.load import ROOT

_COMMAND = "from service.commands.predict import main; main()"


def make_pictures(folder: Path, count: int) -> None:
    """Save the shipped pictures again and again, with qualities from 30 to 95."""
    originals = [Image.open(path).convert("RGB") for path in sorted(GOLDEN_PICTURES.glob("*.jpg"))]
    for number in range(count):
        picture = originals[number % len(originals)]
        picture.save(folder / f"{number:04}.jpg", quality=30 + number * 65 // count)


def measure_pipeline(folder: Path, threads: int, seconds: float) -> dict[str, float]:
    """Pictures a second, and CPU milliseconds of each, that are in memory already and whose answers go nowhere."""
    keep_freed_memory()
    settings = Settings(threads=threads)
    engine = load_verified(settings.model, settings)
    bodies = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    return measure_bare(engine, bodies, workers=threads, seconds=seconds)


def run_command(paths: Sequence[Path], threads: int) -> tuple[float, float]:
    """Pictures a second as the command says, and its CPU seconds."""
    before = _children_cpu_s()
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", _COMMAND, *map(str, paths), "--out", out, "--jobs", str(threads)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    pace = re.search(r"^pictures/s +([\d.]+)$", done.stderr, re.MULTILINE)
    assert pace is not None, done.stderr
    return float(pace[1]), _children_cpu_s() - before


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure_round(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """One round; starting and loading costs what a run over one picture costs."""
    words = ["--bare", str(folder), "--threads", str(options.threads), "--seconds", str(options.seconds)]
    command = [sys.executable, "-m", "tests.benchmarks.predict", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    bare = json.loads(done.stdout)
    _, start_cpu_s = run_command([folder / "0000.jpg"], options.threads)
    pace, cpu_s = run_command([folder], options.threads)
    cpu_ms = (cpu_s - start_cpu_s) / (options.pictures - 1) * 1000
    return {
        "bare_per_second": bare["per_second"],
        "per_second": pace,
        "ratio": pace / bare["per_second"],
        "bare_cpu_ms": bare["cpu_ms"],
        "cpu_ms": cpu_ms,
        "cpu_ratio": bare["cpu_ms"] / cpu_ms,
    }


def main() -> None:
    """Print one line of JSON a round, and their medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=available_cpus())
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--bare", type=Path, help="the bare pipeline alone, over this folder, as rounds ask for it")
    options = parser.parse_args()
    if options.bare is not None:
        sys.stdout.write(json.dumps(measure_pipeline(options.bare, options.threads, options.seconds)) + "\n")
        return
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        make_pictures(Path(folder), options.pictures)
        for _ in range(options.rounds):
            rounds.append(measure_round(Path(folder), options))
            sys.stdout.write(json.dumps({key: round(value, 3) for key, value in rounds[-1].items()}) + "\n")
            sys.stdout.flush()
    medians = {key: round(statistics.median(one[key] for one in rounds), 3) for key in rounds[0]}
    sys.stdout.write(json.dumps({"median": medians}) + "\n")


if __name__ == "__main__":
    main()
