"""Small trees in the layouts of the official releases, cut out of the shipped pictures."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.training.make_sets import write_palette_mask
from training.data.taxonomy import IMAGENETTE, VOID

GOLDEN = Path(__file__).parents[3] / "service" / "models" / "golden"
WIDTH, HEIGHT = 96, 64
# Official ids with their gaps; the val file is numbered otherwise, as exports do.
CATEGORIES = {
    "train": {"person": 1, "cat": 17, "dog": 18, "bottle": 44},
    "val": {"person": 4, "cat": 3, "dog": 2, "bottle": 1},
}
SPLITS = ("train", "val")
VOC_COUNTS = {"train": 40, "val": 20}
COCO_COUNTS = {"train": 32, "val": 16}
IMAGENETTE_COUNTS = {"train": 5, "val": 3}  # of each class


def write_official_trees(root: Path) -> Path:
    """Write VOC 2012, COCO 2017 and Imagenette, all pictures different; gives root back."""
    album = Album()
    write_voc(root, album)
    write_coco(root, album)
    write_imagenette(root, album)
    return root


class Album:
    """Cuts a new piece out of the shipped pictures each time."""

    def __init__(self) -> None:
        self._pages = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(GOLDEN.glob("*.jpg"))]
        self._cut = 0

    def next(self) -> bytes:
        page = self._pages[self._cut % len(self._pages)]
        y, x = (self._cut // 4 * 7) % (page.shape[0] - HEIGHT), (self._cut * 13) % (page.shape[1] - WIDTH)
        self._cut += 1
        return encode(page[y : y + HEIGHT, x : x + WIDTH])


def encode(pixels: NDArray[np.uint8]) -> bytes:
    body = io.BytesIO()
    Image.fromarray(pixels).save(body, "JPEG", quality=85)
    return body.getvalue()


def put(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def write_voc(root: Path, album: Album) -> None:
    """Picture i shows class 1 + i % 20; every fourth one a person as well. Masks have void."""
    base = root / "VOCdevkit" / "VOC2012"
    (base / "SegmentationClass").mkdir(parents=True)
    for split in SPLITS:
        ids = [f"2007_{split}{number:03d}" for number in range(VOC_COUNTS[split])]
        for number, name in enumerate(ids):
            put(base / "JPEGImages" / f"{name}.jpg", album.next())
            mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            mask[10:50, 10:40] = 1 + number % 20
            mask[10:50, 40:42] = VOID
            if number % 4 == 0:
                mask[20:60, 60:80] = 15
            write_palette_mask(base / "SegmentationClass" / f"{name}.png", mask)
        put(base / "ImageSets" / "Segmentation" / f"{split}.txt", "".join(f"{name}\n" for name in ids).encode())


def write_coco(root: Path, album: Album) -> None:
    """Picture i shows one box of class i % 3 (bottles are rarer), but 4 only a crowd, 5 only a tiny box, 6 nothing."""
    names = ["person", "cat", "dog"]
    for split in SPLITS:
        images: list[dict[str, object]] = []
        annotations: list[dict[str, object]] = []
        for number in range(COCO_COUNTS[split]):
            image_id = number + (1000 if split == "train" else 5000)
            name = f"{image_id:012d}.jpg"
            put(root / f"{split}2017" / name, album.next())
            images.append({"id": image_id, "file_name": name, "width": WIDTH, "height": HEIGHT, "license": 1})
            boxes = [(names[number % 3], [8.5, 10.0, 40.0, 30.0], 0)]
            if number % 8 == 0:
                boxes.append(("bottle", [50.0, 12.0, 20.0, 40.0], 0))
            if number % 8 == 3:
                boxes.append((names[number % 3], [0.0, 0.0, 96.0, 20.0], 1))
            special = {4: [("dog", [0.0, 0.0, 90.0, 60.0], 1)], 5: [("dog", [4.0, 4.0, 7.0, 30.0], 0)], 6: []}
            for label, bbox, crowd in special.get(number, boxes):
                annotation = {"image_id": image_id, "category_id": CATEGORIES[split][label], "iscrowd": crowd}
                outline = {"segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], "area": bbox[2] * bbox[3] / 2}
                annotations.append({"id": len(annotations) + 1, "bbox": bbox, **annotation, **outline})
        document = {
            "licenses": [{"id": 1, "name": "Attribution License"}],
            "images": images,
            "annotations": annotations,
            "categories": [{"id": number, "name": label} for label, number in CATEGORIES[split].items()],
        }
        put(root / "annotations" / f"instances_{split}2017.json", json.dumps(document).encode())


def write_imagenette(root: Path, album: Album) -> None:
    for split in SPLITS:
        for wnid in IMAGENETTE:
            for number in range(IMAGENETTE_COUNTS[split]):
                put(root / "imagenette2-160" / split / wnid / f"{wnid}_{split}{number}.JPEG", album.next())


def pack(trees: Path, root: Path) -> Path:
    """Pack official trees into the official archives; gives root back."""
    root.mkdir()
    with tarfile.open(root / "VOCtrainval_11-May-2012.tar", "w") as voc:
        voc.add(trees / "VOCdevkit", "VOCdevkit")
    with tarfile.open(root / "imagenette2-160.tgz", "w:gz", compresslevel=1) as imagenette:
        imagenette.add(trees / "imagenette2-160", "./imagenette2-160")
    for name, folder in (
        ("annotations_trainval2017", "annotations"),
        ("train2017", "train2017"),
        ("val2017", "val2017"),
    ):
        with zipfile.ZipFile(root / f"{name}.zip", "w") as archive:
            for path in sorted((trees / folder).iterdir(), reverse=True):
                archive.write(path, f"{folder}/{path.name}")
    return root
