"""What a large set costs before and while it is learned: time and peak memory of `show`, `doctor`, and an epoch.

    python tests/benchmarks/large_set.py --pictures 100000 --work FOLDER

makes small pictures with boxes (COCO JSON) and as many in class folders, and runs the three commands on each, in
processes of their own. Memory is the most that a process and its children had resident, files that are mapped included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64
CLASSES = 20
# Its own: the preset `tiny` with one epoch of one task.
PRESET = """
preset = "large"
input_size = 64
[model]
backbone_weights = "random"
neck_channels = 16
head_channels = 16
[[stages]]
task = "{task}"
epochs = 1
batch_size = 64
"""


def main() -> None:
    """Make the sets that are not there, run the commands, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=100_000, help="of train, in each set (default: %(default)s)")
    parser.add_argument("--work", type=Path, required=True, help="folder for the sets, the cache and the runs")
    parser.add_argument("--tasks", nargs="+", default=["detection", "classification"], help="which sets")
    options = parser.parse_args()
    counts = {"train": options.pictures, "val": max(1, options.pictures // 50)}
    print(f"| {options.pictures} pictures of {SIDE} px | s | s of CPU | MiB at most |\n|---|---|---|---|")
    for task in options.tasks:
        root = options.work / f"{task}_{options.pictures}"
        if not root.exists():
            make_set(root, task, counts)
        preset = options.work / f"{task}.toml"
        preset.write_text(PRESET.format(task=task))
        cache, out = options.work / f"cache_{task}", options.work / f"run_{task}_{os.getpid()}"
        run = ["training", "run", "--preset", preset, "--data", root, "--out", out, "--device", "cpu"]
        for name, command in (
            ("show", ["training.data.cli", "show", root]),
            ("doctor", ["training.data.cli", "doctor", root]),
            ("doctor again", ["training.data.cli", "doctor", root]),
            ("run: doctor, read, fingerprint, one epoch, evaluation, report", run),
        ):
            wall_s, cpu_s, peak_mib = measure([str(word) for word in command], cache)
            print(f"| {task}: {name} | {wall_s:.0f} | {cpu_s:.0f} | {peak_mib:.0f} |", flush=True)


def make_set(root: Path, task: str, counts: dict[str, int]) -> None:
    """Write pictures that all differ, and their labels."""
    for number, (split, count) in enumerate(counts.items()):
        places = [place_picture(root / split, task, index) for index in range(count)]
        for folder in {place.parent for place in places}:
            folder.mkdir(parents=True)
        with ProcessPoolExecutor() as pool:
            list(pool.map(draw, places, range(number * 10**7, number * 10**7 + count), chunksize=500))
        if task == "detection":
            write_labels(root / split / "labels.json", [place.name for place in places])


def place_picture(folder: Path, task: str, index: int) -> Path:
    """Where a picture lies."""
    name = f"{folder.name}{index:07d}.jpg"
    return folder / ("data" if task == "detection" else f"class {index % CLASSES:02d}") / name


def draw(path: Path, seed: int) -> None:
    """A few blocks of colour, enlarged: no two look the same."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=85)


def write_labels(path: Path, names: list[str]) -> None:
    """Three boxes a picture."""
    images = [{"id": index, "file_name": name, "width": SIDE, "height": SIDE} for index, name in enumerate(names)]
    annotations = [
        {
            "id": 3 * index + place,
            "image_id": index,
            "category_id": (index + place) % CLASSES,
            "bbox": [4.0 + 16 * place, 8.0, 12.0, 30.0],
            "iscrowd": 0,
        }
        for index in range(len(names))
        for place in range(3)
    ]
    categories = [{"id": number, "name": f"class {number:02d}"} for number in range(CLASSES)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def measure(words: list[str], cache: Path) -> tuple[float, float, float]:
    """Run a module with its arguments: seconds, seconds of CPU, MiB of its largest process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # A process between, because the peak of children that have ended is that of the largest of all.
    program = (
        "import json, resource, subprocess, sys\n"
        "code = subprocess.run([sys.executable, '-m', *sys.argv[1:]], stdout=subprocess.DEVNULL).returncode\n"
        "print(json.dumps([code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))"
    )
    started = time.perf_counter()
    environment = os.environ | {"UNIHEAD_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *words], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    wall_s = time.perf_counter() - started
    code, peak_kib = json.loads(done.stdout)
    if code:
        raise SystemExit(f"{' '.join(words)} ended with {code}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall_s, cpu_s, peak_kib / 1024


if __name__ == "__main__":
    main()
