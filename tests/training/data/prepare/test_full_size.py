"""`prepare` on an annotation file as large as COCO's own: 448 MB, 118,287 pictures, 860,001 boxes."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.training.data.official_trees import encode
from training.data.taxonomy import COCO

PICTURES, BOXES = 118_287, 860_001
WIDTH, HEIGHT = 640, 480
MAX_SECONDS, MAX_BYTES = 120, 4 * 2**30
BLOCK = 10_000

MEASURED_RUN = """
import argparse, json, resource, sys, time
from training.data.prepare.command import add_prepare_parser

parser = argparse.ArgumentParser()
add_prepare_parser(parser.add_subparsers())
options = parser.parse_args(["prepare", *sys.argv[1:]])
started = time.monotonic()
code = options.run(options)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"code": code, "seconds": time.monotonic() - started, "bytes": peak}))
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """COCO as large as it is, but with one picture under all names; a gigabyte is not left behind."""
    root = tmp_path_factory.mktemp("coco")
    for split, pictures, boxes, level in (("train", PICTURES, BOXES, 90), ("val", 5_000, 36_781, 160)):
        write_annotations(root / "annotations" / f"instances_{split}2017.json", pictures, boxes)
        picture = root / f"{split}.jpg"
        picture.write_bytes(encode(np.full((HEIGHT, WIDTH, 3), level, dtype=np.uint8)))
        (root / f"{split}2017").mkdir()
        for number in range(pictures):
            (root / f"{split}2017" / f"{number + len(split) * 1_000_000:012d}.jpg").symlink_to(picture)
    yield root
    shutil.rmtree(root)


def write_annotations(path: Path, pictures: int, boxes: int) -> None:
    """Write rows of the length that the official file's have: 45 numbers in the outline of an object on average."""
    rng = np.random.default_rng(0)
    outlines = [json.dumps([np.round(rng.uniform(0, 480, count), 2).tolist()]) for count in rng.integers(6, 76, 500)]
    first = len(path.stem.removeprefix("instances_").removesuffix("2017")) * 1_000_000
    sides = rng.integers(4, 200, size=(boxes, 4)) + 0.25
    labels = rng.geometric(0.05, size=boxes) % 80
    rows = (
        f'{{"segmentation": {outlines[number % 500]},"area": {sides[number][2] * 90:.4f},"iscrowd": 0,'
        f'"image_id": {first + number % pictures},"bbox": {sides[number].tolist()},'
        f'"category_id": {labels[number] + 1},"id": {number + 1}}}'
        for number in range(boxes)
    )
    images = (
        f'{{"license": 3,"file_name": "{first + number:012d}.jpg",'
        f'"coco_url": "http://images.cocodataset.org/train2017/{first + number:012d}.jpg","height": {HEIGHT},'
        f'"width": {WIDTH},"date_captured": "2013-11-14 11:18:45",'
        f'"flickr_url": "http://farm9.staticflickr.com/8186/{first + number}_7784ee91_z.jpg","id": {first + number}}}'
        for number in range(pictures)
    )
    categories = json.dumps([{"id": position + 1, "name": name} for position, name in enumerate(COCO)])
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as stream:
        stream.write('{"licenses": [],"images": [')
        stream.write(",".join(images))
        stream.write('],"annotations": [')
        stream.writelines(row if number == 0 else f",{row}" for number, row in enumerate(rows))
        stream.write(f'],"categories": {categories}}}')


@pytest.mark.full
def test_prepare_reads_860001_boxes_within_4_gb_and_2_minutes(release: Path, tmp_path: Path) -> None:
    annotations = release / "annotations" / "instances_train2017.json"
    assert annotations.stat().st_size > 430e6

    words = ["--from", str(release), "--out", str(tmp_path / "out"), "--tasks", "detection"]
    answer = subprocess.run([sys.executable, "-c", MEASURED_RUN, *words], capture_output=True, text=True, check=False)

    assert not answer.stderr
    measured = json.loads(answer.stdout.splitlines()[-1])
    print(measured)  # noqa: T201 - the figure that the changelog names
    assert measured["code"] == 0
    assert measured["seconds"] < MAX_SECONDS
    assert measured["bytes"] < MAX_BYTES
    assert len(list((tmp_path / "out/mini_coco_det/train/data").iterdir())) == 240
