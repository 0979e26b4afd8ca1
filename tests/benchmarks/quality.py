"""How good the answers of a running service are: boxes, masks and classes of labelled pictures, asked over HTTP.

Pictures are sent as their files are. Boxes are asked for twice: 100 from a score of 0.01 for average precision, which
pycocotools computes too, and once without a threshold for precision, recall and duplicates of what callers get by
default. Intervals are over pictures drawn with replacement (`training.metrics.bootstrap`). The sets lie below the
folders that are named; those that are nowhere are left out, and said.

Run from the repository's root: `python -m tests.benchmarks.quality --url http://127.0.0.1:8000 FOLDER [FOLDER ...]`
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from service.client import Client, Detection, Result
from training.data.taxonomy import IMAGENETTE, VOC
from training.metrics.bootstrap import Interval, Resampled, bootstrap_interval
from training.metrics.classification import Accuracy
from training.metrics.detection import AveragePrecision
from training.metrics.operating import measure_at
from training.metrics.segmentation import ConfusionMatrix

BOXES, MASKS = "measure/coco", "mini_voc_seg/val"
CLASSES = ("measure/imagenette", "imagenette_160/val")
LOWEST_SCORE, MOST_BOXES = 0.01, 100

Found = Mapping[int, Sequence[Detection]]  # by id of the picture


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, over how many pictures; and what another implementation says, where there is one."""

    what: str
    pictures: int
    value: float
    interval: Interval | None = None
    pycocotools: float | None = None

    def cells(self) -> list[str]:
        """The figure as a line of the table."""
        between = "" if self.interval is None else f"{self.interval.low:.4f} to {self.interval.high:.4f}"
        other = "" if self.pycocotools is None else f"{self.pycocotools:.4f}"
        return [self.what, str(self.pictures), f"{self.value:.4f}", between, other]


def count_boxes(truth: Mapping[str, Any], found: Found) -> AveragePrecision:
    """Judge the boxes of every picture of a COCO JSON.

    Args:
        truth: the JSON.
        found: what was answered, by the pictures' ids.

    Raises:
        ValueError: a box has a name that the JSON does not know.
    """
    places = {row["id"]: place for place, row in enumerate(truth["categories"])}
    names = {row["name"]: places[row["id"]] for row in truth["categories"]}
    counted = AveragePrecision(len(places))
    for image in truth["images"]:
        mine = [row for row in truth["annotations"] if row["image_id"] == image["id"]]
        answered = found[image["id"]]
        if strange := [one.label for one in answered if one.label not in names]:
            raise ValueError(f"the service answers {strange[0]!r}, which is no class of these pictures")
        parts: dict[str, Any] = {}
        for kind, crowd in (("target", 0), ("crowd", 1)):
            rows = [row for row in mine if row.get("iscrowd", 0) == crowd]
            corners = [(x, y, x + width, y + height) for x, y, width, height in (row["bbox"] for row in rows)]
            parts[f"{kind}_boxes"] = np.array(corners, dtype=np.float32).reshape(-1, 4)
            parts[f"{kind}_labels"] = np.array([places[row["category_id"]] for row in rows], dtype=np.int64)
        counted.update(
            boxes=np.array([one.box for one in answered], dtype=np.float32).reshape(-1, 4),
            scores=np.array([one.score for one in answered], dtype=np.float32),
            labels=np.array([names[one.label] for one in answered], dtype=np.int64),
            **parts,
        )
    return counted


def ask_pycocotools(truth: Mapping[str, Any], found: Found) -> tuple[float, float]:
    """Average precision at an IoU of 0.5, and averaged over ten, from the same JSON and boxes."""
    ids = {row["name"]: row["id"] for row in truth["categories"]}
    results = [
        {
            "image_id": image,
            "category_id": ids[one.label],
            "bbox": [one.box[0], one.box[1], one.box[2] - one.box[0], one.box[3] - one.box[1]],
            "score": one.score,
        }
        for image, answered in found.items()
        for one in answered
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = dict(truth)
        known.createIndex()
        judged = COCOeval(known, known.loadRes(results), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return float(judged.stats[1]), float(judged.stats[0])


def describe_boxes(truth: Mapping[str, Any], found: Found, by_default: Found) -> list[Row]:
    """The figures of boxes: of all that were asked for, and of those that come without a threshold."""
    counted, pictures = count_boxes(truth, found), len(truth["images"])
    metrics, (theirs_50, theirs) = counted.compute(), ask_pycocotools(truth, found)
    point = measure_at(count_boxes(truth, by_default).judge_boxes(), 0.0)
    return [
        Row(f"{BOXES}: mAP@0.5", pictures, metrics.map_50, _interval(counted), theirs_50),
        Row(f"{BOXES}: mAP@[.5:.95]", pictures, metrics.map_50_95, None, theirs),
        Row(f"{BOXES}: precision by default", pictures, point.precision),
        Row(f"{BOXES}: recall by default", pictures, point.recall),
        Row(f"{BOXES}: F1 by default", pictures, point.f1),
        Row(f"{BOXES}: boxes a picture by default", pictures, point.boxes_per_picture),
        Row(f"{BOXES}: duplicates a picture by default", pictures, point.duplicates_per_picture),
    ]


def count_mask(counted: ConfusionMatrix, truth: Path, answer: Result) -> None:
    """Judge one mask; its classes are VOC's by name.

    Raises:
        ValueError: a class has another name, or the sizes differ.
    """
    if strange := [segment.label for segment in answer.segments if segment.label not in VOC]:
        raise ValueError(f"the service answers {strange[0]!r}, which is no class of VOC")
    if answer.mask is None:
        raise ValueError("the answer has no mask")
    to_voc = np.zeros(256, dtype=np.uint8)
    for segment in answer.segments:
        to_voc[segment.label_id] = VOC.index(segment.label)
    with Image.open(truth) as mask:
        counted.update(to_voc[answer.mask], np.asarray(mask))


def count_class(counted: Accuracy, wnid: str, answer: Result) -> None:
    """Judge the first class of one picture, by its name; one that Imagenette does not have is wrong."""
    names = list(IMAGENETTE.values())
    right = names.index(IMAGENETTE[wnid])
    said = answer.classes[0].label
    place = names.index(said) if said in names else (right + 1) % len(names)
    counted.update(np.eye(len(names), dtype=np.float32)[[place]], np.array([right]))


def _interval(counted: Resampled) -> Interval:
    return bootstrap_interval(counted, rng=np.random.default_rng(0))


def _measure_boxes(client: Client, folder: Path) -> list[Row]:
    truth = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    found, by_default = {}, {}
    for image in truth["images"]:
        picture = (folder / "data" / image["file_name"]).read_bytes()
        found[image["id"]] = client.detect(picture, score_threshold=LOWEST_SCORE, max_detections=MOST_BOXES).detections
        by_default[image["id"]] = client.detect(picture).detections
    return describe_boxes(truth, found, by_default)


def _measure_masks(client: Client, folder: Path) -> list[Row]:
    counted = ConfusionMatrix(len(VOC))
    for picture in sorted(folder.glob("*.jpg")):
        count_mask(counted, picture.with_suffix(".png"), client.segment(picture))
    return [Row(f"{MASKS}: mIoU", counted.num_pictures, counted.compute().mean_iou, _interval(counted))]


def _measure_classes(client: Client, folders: Sequence[Path]) -> list[Row]:
    counted = Accuracy(len(IMAGENETTE))
    for picture in sorted(path for folder in folders for path in folder.glob("n*/*") if path.is_file()):
        count_class(counted, picture.parent.name, client.classify(picture, top_k=1))
    what = " and ".join(name for name in CLASSES if any(folder.match(name) for folder in folders))
    return [Row(f"{what}: top-1", counted.num_pictures, counted.compute().top_1, _interval(counted))]


def measure(client: Client, roots: Sequence[Path]) -> Iterator[Row]:
    """Ask about every set that lies below one of the roots."""
    places = {name: root / name for name in (BOXES, MASKS, *CLASSES) for root in roots if (root / name).is_dir()}
    if BOXES in places:
        yield from _measure_boxes(client, places[BOXES])
    if MASKS in places:
        yield from _measure_masks(client, places[MASKS])
    if there := [places[name] for name in CLASSES if name in places]:
        yield from _measure_classes(client, there)
    for name in sorted({BOXES, MASKS, *CLASSES} - places.keys()):
        print(f"{name}: not below {', '.join(map(str, roots))}; left out")


def format_table(rows: Sequence[Row]) -> list[str]:
    """The lines of a Markdown table."""
    head = ["figure", "pictures", "value", "95 % interval", "pycocotools"]
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *(row.cells() for row in rows))]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="below which the sets lie")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the service")
    options = parser.parse_args()
    with Client(options.url, timeout_s=60, retries=8) as client:
        info = client.info()
        rows = list(measure(client, options.folders))
    print(f"{info['model']['version']}, score_threshold {info['contract'].get('score_threshold', 0.3)} by default\n")
    print(*format_table(rows), sep="\n")


if __name__ == "__main__":
    main()
