"""Milliseconds of a forward pass of several model files on one thread: each file in a process of its own, in turns.

Run from the repository's root: `python -m tests.benchmarks.graph FILE FILE ...`; ratios are to the first file. The
`seed` network as first exported is `git show 1a19440:service/models/unihead.onnx`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

from tests.benchmarks.load import ROOT

_WARM_UP = 20


def measure(file: Path, passes: int) -> float:
    """The median of so many passes over a picture of noise, as ONNX Runtime runs the file without any contract."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    picture = np.random.default_rng(0).integers(0, 255, (1, *given.shape[1:]), dtype=np.uint8)
    times = []
    for _ in range(_WARM_UP + passes):
        started = time.perf_counter()
        session.run(None, {given.name: picture})
        times.append(time.perf_counter() - started)
    return statistics.median(times[_WARM_UP:]) * 1000


def main() -> None:
    """Print one line of JSON a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--passes", type=int, default=70)
    options = parser.parse_args()
    if len(options.files) == 1 and options.rounds == 0:  # how the processes of a round are asked
        sys.stdout.write(f"{measure(options.files[0], options.passes)}\n")
        return
    times: dict[Path, list[float]] = {file: [] for file in options.files}
    for _ in range(options.rounds):
        for file in options.files:
            command = [sys.executable, "-m", "tests.benchmarks.graph", str(file.absolute()), "--rounds", "0"]
            command += ["--passes", str(options.passes)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            times[file].append(float(done.stdout))
    first = statistics.median(times[options.files[0]])
    for file, seen in times.items():
        ms = statistics.median(seen)
        sys.stdout.write(json.dumps({"file": file.name, "ms": round(ms, 2), "ratio": round(ms / first, 3)}) + "\n")


if __name__ == "__main__":
    main()
