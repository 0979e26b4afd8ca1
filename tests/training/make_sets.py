"""A small synthetic copy of the three mini sets, in their layouts: coloured rectangles on a textured ground."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# One colour each, so that a tiny network can learn them.
COLOURS = ((220, 40, 40), (40, 190, 60), (50, 80, 220))
VOC_LABELS = (8, 12, 15)  # cat, dog, person
COCO_NAMES = ("cat", "dog", "person")
WNIDS = ("n01440764", "n03000684", "n03888257")  # tench, chain saw, parachute
# Rows are numbered anew in each split, as in the exports that the readers have to meet.
COCO_IDS = {"train": {"cat": 1, "dog": 2, "person": 3}, "val": {"cat": 2, "dog": 3, "person": 1}}
VOID = 255


class Scene(NamedTuple):
    pixels: NDArray[np.uint8]  # [H, W, 3] RGB
    objects: list[tuple[int, tuple[int, int, int, int]]]  # position in COLOURS; xyxy, pixels


def write_tiny_sets(root: Path, *, train: int = 6, val: int = 4, seed: int = 0) -> Path:
    """Write `mini_voc_seg`, `mini_coco_det` and `imagenette_160` below root; gives root back.

    Masks have void borders, the first COCO picture of each split a crowd, the last of train no object at all.
    """
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        write_segmentation(root / "mini_voc_seg" / split, [make_scene(rng) for _ in range(count)])
        scenes = [make_scene(rng) for _ in range(count)]
        if split == "train":
            scenes[-1].objects.clear()
        write_detection(root / "mini_coco_det" / split, scenes, COCO_IDS[split])
        write_classification(root / "imagenette_160" / split, [make_scene(rng, index % 3) for index in range(count)])
    return root


def make_scene(rng: np.random.Generator, colour: int | None = None) -> Scene:
    """Draw a picture of 64 to 96 px a side with one rectangle on its left and perhaps another on its right."""
    height, width = (int(side) for side in rng.integers(64, 97, size=2))
    pixels = rng.integers(90, 150, size=(height, width, 3), dtype=np.uint8)
    objects = []
    for left in (0, width // 2)[: 1 if colour is not None else int(rng.integers(1, 3))]:
        x1, y1 = left + int(rng.integers(2, 8)), int(rng.integers(2, 16))
        x2, y2 = x1 + int(rng.integers(16, 24)), y1 + int(rng.integers(20, 40))
        index = int(rng.integers(3)) if colour is None else colour
        pixels[y1:y2, x1:x2] = COLOURS[index]
        objects.append((index, (x1, y1, x2, y2)))
    return Scene(pixels, objects)


def write_segmentation(folder: Path, scenes: list[Scene]) -> None:
    folder.mkdir(parents=True)
    for number, (pixels, objects) in enumerate(scenes):
        mask = np.zeros(pixels.shape[:2], dtype=np.uint8)
        for index, (x1, y1, x2, y2) in objects:
            mask[y1 - 1 : y2 + 1, x1 - 1 : x2 + 1] = VOID
            mask[y1:y2, x1:x2] = VOC_LABELS[index]
        stem = f"2007_{folder.name}_{number:03d}"
        Image.fromarray(pixels).save(folder / f"{stem}.jpg", quality=90)
        write_palette_mask(folder / f"{stem}.png", mask)


def write_palette_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    picture = Image.fromarray(mask)
    picture.putpalette(np.random.default_rng(0).integers(0, 256, size=768, dtype=np.uint8).tobytes())
    picture.save(path)


def write_detection(folder: Path, scenes: list[Scene], category_ids: dict[str, int]) -> None:
    (folder / "data").mkdir(parents=True)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number, (pixels, objects) in enumerate(scenes, start=1):
        name = f"{folder.name}{number:09d}.jpg"
        height, width = pixels.shape[:2]
        Image.fromarray(pixels).save(folder / "data" / name, quality=90)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        rows = [(COCO_NAMES[index], box, 0) for index, box in objects]
        if number == 1:
            rows.append(("person", (0, height // 2, width, height), 1))
        for label, (x1, y1, x2, y2), crowd in rows:
            annotation = {"image_id": number, "category_id": category_ids[label], "iscrowd": crowd}
            annotations.append({"id": len(annotations) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1], **annotation})
    categories = [{"id": category_id, "name": name} for name, category_id in category_ids.items()]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(document))


def write_classification(folder: Path, scenes: list[Scene]) -> None:
    for number, (pixels, objects) in enumerate(scenes):
        wnid = WNIDS[objects[0][0]]
        (folder / wnid).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / wnid / f"{wnid}_{folder.name}{number}.JPEG", quality=90)
