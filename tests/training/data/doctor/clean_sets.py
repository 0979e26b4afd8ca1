"""Three small sets without a fault, in the mini layouts and in the official ones; plants of faults begin from here."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.training.make_sets import COLOURS, Scene, write_classification, write_detection, write_segmentation

CATEGORY_IDS = {"cat": 17, "dog": 18, "person": 1}
COUNTS = {"train": 6, "val": 3}


def write_clean_sets(root: Path) -> Path:
    """Write `mini_voc_seg`, `mini_coco_det` and `imagenette_160`, 6 train and 3 val pictures each; gives root back."""
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        write_segmentation(root / "mini_voc_seg" / split, [make_scene(rng, index) for index in range(count)])
        write_detection(
            root / "mini_coco_det" / split, [make_scene(rng, index) for index in range(count)], CATEGORY_IDS
        )
        edit_labels(root, split, drop_crowds)
        write_classification(root / "imagenette_160" / split, [make_scene(rng, index) for index in range(count)])
    return root


def write_official_sets(clean: Path, root: Path) -> Path:
    """Lay the clean sets' pictures out as PASCAL VOC 2012 and COCO 2017 have them; gives root back."""
    voc, coco = root / "voc" / "VOCdevkit" / "VOC2012", root / "coco"
    for folder in (voc / "JPEGImages", voc / "SegmentationClass", voc / "ImageSets" / "Segmentation"):
        folder.mkdir(parents=True)
    (coco / "annotations").mkdir(parents=True)
    for split in COUNTS:
        images = sorted((clean / "mini_voc_seg" / split).glob("*.jpg"))
        for image in images:
            shutil.copy(image, voc / "JPEGImages")
            shutil.copy(image.with_suffix(".png"), voc / "SegmentationClass")
        ids = "".join(f"{image.stem}\n" for image in images)
        (voc / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(ids)
        shutil.copytree(clean / "mini_coco_det" / split / "data", coco / f"{split}2017")
        shutil.copy(
            clean / "mini_coco_det" / split / "labels.json", coco / "annotations" / f"instances_{split}2017.json"
        )
    return root


def make_scene(rng: np.random.Generator, index: int) -> Scene:
    """Draw 96 x 80 px of grey blocks, no two alike, with one rectangle at the top left and one at the bottom right."""
    blocks = rng.integers(60, 200, size=(8, 12, 1), dtype=np.uint8)
    pixels = np.kron(blocks, np.ones((10, 8, 3), dtype=np.uint8))
    objects = []
    for place, (left, top) in enumerate(((4, 4), (56, 44))):
        x1, y1 = left + int(rng.integers(8)), top + int(rng.integers(8))
        colour = (index + place) % 3
        pixels[y1 : y1 + 24, x1 : x1 + 20] = COLOURS[colour]
        objects.append((colour, (x1, y1, x1 + 20, y1 + 24)))
    return Scene(pixels, objects)


def edit_labels(root: Path, split: str, edit: Callable[[dict[str, list[Any]]], None]) -> None:
    """Change the decoded labels.json of a detection split in place."""
    path = root / "mini_coco_det" / split / "labels.json"
    document = json.loads(path.read_bytes())
    edit(document)
    path.write_text(json.dumps(document))


def drop_crowds(document: dict[str, list[Any]]) -> None:
    document["annotations"] = [row for row in document["annotations"] if not row["iscrowd"]]
