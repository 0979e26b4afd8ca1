"""One function for each fault: it plants that fault, and no other, into clean sets."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.training.data.doctor.clean_sets import edit_labels, make_scene
from tests.training.make_sets import write_palette_mask

Plant: TypeAlias = Callable[[Path], None]
Document: TypeAlias = dict[str, list[Any]]

VOC, COCO, IMAGENETTE = "mini_voc_seg", "mini_coco_det", "imagenette_160"


def first(root: Path, pattern: str) -> Path:
    return min(root.glob(pattern))


def in_labels(edit: Callable[[Document], None], split: str = "train") -> Plant:
    return lambda root: edit_labels(root, split, edit)


def in_annotation(**fields: object) -> Plant:
    """Change fields of the first annotation of train."""
    return in_labels(lambda document: document["annotations"][0].update(fields))


def add_row(part: str, row: object) -> Plant:
    return in_labels(lambda document: document[part].append(row))


def add_class(name: str, *, named_in: Sequence[str] = ("train", "val"), shown_in: str = "train") -> Plant:
    """Name one more class and give it to the first box of a split."""

    def plant(root: Path) -> None:
        for split in named_in:
            edit_labels(root, split, lambda document: document["categories"].append({"id": 7, "name": name}))
        edit_labels(root, shown_in, lambda document: document["annotations"][0].update(category_id=7))

    return plant


def renumber_val(root: Path) -> None:
    def edit(document: Document) -> None:
        for row in document["categories"]:
            row["id"] += 100
        for row in document["annotations"]:
            row["category_id"] += 100

    edit_labels(root, "val", edit)


def repeat_id(part: str) -> Plant:
    def edit(document: Document) -> None:
        document[part].append(document[part][0])

    return in_labels(edit)


def repeat_annotation_id(root: Path) -> None:
    """As exports do that number the annotations of each picture from 1."""

    def edit(document: Document) -> None:
        document["annotations"][1]["id"] = document["annotations"][0]["id"]

    edit_labels(root, "train", edit)


def background_alone(root: Path) -> None:
    """Turn classes to 255, which training takes for void."""
    for split in ("train", "val"):
        for path in sorted((root / VOC / split).glob("*.png")):
            with Image.open(path) as picture:
                mask = np.asarray(picture)
            write_palette_mask(path, np.where(mask > 0, 255, 0).astype(np.uint8))


def list_twice(document: Document) -> None:
    document["images"].append({**document["images"][0], "id": 99})


def corners_for_sizes(document: Document) -> None:
    for row in document["annotations"]:
        x, y, width, height = row["bbox"]
        row["bbox"] = [x, y, x + width, y + height]


def sizes_for_corners(document: Document) -> None:
    for row in document["annotations"]:
        x, y, width, height = row["bbox"]
        row["bbox"] = [x, y, width - x, height - y]


def normalise(document: Document) -> None:
    for row in document["annotations"]:
        row["bbox"] = [side / full for side, full in zip(row["bbox"], (96, 80, 96, 80), strict=True)]


def foreign_file(root: Path, present: int = 3) -> None:
    """List eight pictures beside the splits, of which some are there."""
    images = [{"id": number, "file_name": f"{number:012d}.jpg", "width": 9, "height": 9} for number in range(8)]
    for row, path in zip(images[:present], sorted(root.glob(f"{COCO}/train/data/*.jpg")), strict=False):
        row["file_name"] = path.name
    (root / COCO / "labels.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))


def copy(source: str, target: str) -> Plant:
    """Copy the first file of a pattern to a path below the root; "{stem}" there stands for the source's."""

    def plant(root: Path) -> None:
        path = first(root, source)
        shutil.copy(path, root / target.format(stem=path.stem))

    return plant


def save_as(pattern: str, mode: str, exif: Image.Exif | None = None) -> Plant:
    """Save a picture again after converting it."""

    def plant(root: Path) -> None:
        path = first(root, pattern)
        with Image.open(path) as picture:
            converted = picture.convert(mode)
        converted.save(path, quality=90, exif=exif or Image.Exif())

    return plant


def shrunk_copy(source: str, target: str) -> Plant:
    """Put a copy of a picture elsewhere, at half the size and JPEG quality 30."""

    def plant(root: Path) -> None:
        with Image.open(first(root, source)) as picture:
            picture.resize((picture.width // 2, picture.height // 2)).save(root / target, quality=30)

    return plant


def upside_down() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 3
    return exif


def sixteen_bit(root: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 65536, size=(64, 64), dtype=np.uint16)
    Image.fromarray(levels).save(first(root, f"{IMAGENETTE}/train/*") / "wide.png")


def cut(pattern: str, keep: float) -> Plant:
    def plant(root: Path) -> None:
        path = first(root, pattern)
        body = path.read_bytes()
        path.write_bytes(body[: int(len(body) * keep)])

    return plant


def overwrite(pattern: str, body: bytes) -> Plant:
    return lambda root: void(first(root, pattern).write_bytes(body))


def void(_value: object) -> None:
    """Drop a value, so that a lambda gives None."""


def delete(pattern: str) -> Plant:
    return lambda root: first(root, pattern).unlink()


def delete_folder(folder: str) -> Plant:
    return lambda root: shutil.rmtree(root / folder)


def empty_labels(document: Document) -> None:
    document["images"], document["annotations"] = [], []


def new_mask(change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Plant:
    def plant(root: Path) -> None:
        path = first(root, f"{VOC}/train/*.png")
        with Image.open(path) as picture:
            write_palette_mask(path, change(np.asarray(picture).copy()))

    return plant


def rename(source: str, name: str) -> Plant:
    return lambda root: void(first(root, source).rename(first(root, source).parent / name))


def twin_folder(root: Path) -> None:
    """Give the sets' classes names of their own, one of them in two spellings in both splits."""
    for split in ("train", "val"):
        for folder, name in zip(sorted((root / IMAGENETTE / split).iterdir()), ("cat", "Cat", "dog"), strict=True):
            folder.rename(folder.with_name(name))


def misspelt_folder(root: Path) -> None:
    for split in ("train", "val"):
        folder = root / IMAGENETTE / split / "n01440764"
        folder.rename(folder.with_name("n01440765"))


def empty_class(root: Path) -> None:
    for path in first(root, f"{IMAGENETTE}/val/n*").iterdir():
        path.unlink()


def many_of_one_class(root: Path) -> None:
    rng = np.random.default_rng(1)
    folder = first(root, f"{IMAGENETTE}/train/n*")
    for number in range(60):
        Image.fromarray(make_scene(rng, 0).pixels).save(folder / f"more_{number}.JPEG", quality=90)


FIRST_JPEG = f"{IMAGENETTE}/train/*/*.JPEG"
FIRST_MASK = f"{VOC}/train/*.png"

PLANTS: list[tuple[str, Plant]] = [
    ("missing-split", delete_folder(f"{VOC}/val")),
    ("missing-split", delete_folder(f"{COCO}/val")),
    ("missing-split", delete_folder(f"{IMAGENETTE}/val")),
    ("empty-split", in_labels(empty_labels, "val")),
    ("empty-class-folder", empty_class),
    ("unreadable-annotation-file", overwrite(f"{COCO}/train/labels.json", b"{")),
    ("unreadable-annotation-file", overwrite(f"{COCO}/val/labels.json", b"[]")),
    ("masks-without-class", background_alone),
    ("repeated-annotation-id", repeat_annotation_id),
    ("foreign-annotation-file", foreign_file),
    ("corrupt-category", add_row("categories", {"id": 9, "name": {"id": 9, "name": "bird"}})),
    ("corrupt-category", add_row("categories", {"id": -1, "name": "bird"})),
    ("corrupt-category", add_row("categories", {"id": 9, "name": " "})),
    ("corrupt-category", add_row("categories", "bird")),
    ("corrupt-image-entry", add_row("images", {"id": 99, "width": 9, "height": 9})),
    ("corrupt-annotation", in_annotation(bbox=[1, 2, 3])),
    ("corrupt-annotation", in_annotation(bbox=[1, 2, float("nan"), 3])),
    ("corrupt-annotation", in_annotation(image_id=None)),
    ("duplicate-id", repeat_id("images")),
    ("duplicate-id", repeat_id("categories")),
    ("category-ids-differ", renumber_val),
    ("unknown-class-name", add_class("unicorn")),
    ("unknown-class-name", misspelt_folder),
    ("duplicate-class-name", add_class("dog")),
    ("duplicate-class-name", twin_folder),
    ("unknown-image-id", in_annotation(image_id=99)),
    ("unknown-category-id", in_annotation(category_id=90)),
    ("listed-picture-missing", delete(f"{COCO}/train/data/*.jpg")),
    ("picture-size-differs", in_labels(lambda document: document["images"][0].update(width=97))),
    ("unreadable-picture", overwrite(FIRST_JPEG, b"GIF89a")),
    ("unreadable-picture", overwrite(FIRST_JPEG, b"")),
    ("unreadable-picture", overwrite(FIRST_MASK, b"\x89PNG\r\n\x1a\nIEND")),
    ("truncated-picture", cut(FIRST_JPEG, 0.6)),
    ("truncated-picture", cut(FIRST_MASK, 0.9)),
    ("missing-mask", delete(FIRST_MASK)),
    ("mask-without-picture", delete(f"{VOC}/train/*.jpg")),
    ("mask-not-palette", save_as(FIRST_MASK, mode="RGB")),
    ("mask-size-differs", new_mask(lambda mask: mask[:-1])),
    ("mask-value-unknown", new_mask(lambda mask: np.where(mask == 0, 21, mask).astype(np.uint8))),
    ("same-picture-in-two-splits", copy(FIRST_JPEG, IMAGENETTE + "/val/n01440764/another.JPEG")),
    ("same-picture-in-two-splits", copy(FIRST_JPEG, IMAGENETTE + "/val/n01440764/{stem}.JPEG")),
    ("same-picture-in-two-tasks", copy(f"{COCO}/val/data/*.jpg", IMAGENETTE + "/train/n01440764/other.jpg")),
    ("box-from-outline", in_annotation(bbox=[], segmentation=[[8, 9, 28, 9, 28, 33, 8, 33]])),
    ("normalised-box", in_labels(normalise)),
    ("normalised-box", in_annotation(bbox=[0.25, 0.25, 0.5, 0.5])),
    ("xywh-taken-for-xyxy", in_labels(corners_for_sizes)),
    ("xywh-taken-for-xyxy", in_labels(sizes_for_corners)),
    ("box-outside-picture", in_annotation(bbox=[90, 10, 20, 20])),
    ("box-outside-picture", in_annotation(bbox=[200, 10, 20, 20])),
    ("box-outside-picture", in_annotation(bbox=[-5, 10, 20, 20])),
    ("box-without-area", in_annotation(bbox=[40, 40, -20, 10])),
    ("box-without-area", in_annotation(bbox=[40, 40, 20, 0])),
    ("tiny-box", in_annotation(bbox=[40, 40, 1.5, 10])),
    ("crowd-box", in_annotation(iscrowd=1)),
    ("missing-class-name", add_class("car", named_in=("train",))),
    ("missing-class-name", delete_folder(f"{IMAGENETTE}/val/n01440764")),
    ("class-without-training-example", add_class("car", shown_in="val")),
    ("class-imbalance", many_of_one_class),
    ("same-name-in-two-splits", rename(f"{IMAGENETTE}/val/*/*.JPEG", "n01440764_train0.JPEG")),
    ("picture-listed-twice", in_labels(list_twice)),
    ("near-duplicate", shrunk_copy(FIRST_JPEG, f"{IMAGENETTE}/val/n01440764/small.JPEG")),
    ("near-duplicate", shrunk_copy(f"{VOC}/val/*.jpg", f"{IMAGENETTE}/train/n01440764/small.JPEG")),
    ("cmyk-picture", save_as(FIRST_JPEG, mode="CMYK")),
    ("16-bit-picture", sixteen_bit),
    ("exif-rotated-picture", save_as(FIRST_JPEG, mode="RGB", exif=upside_down())),
    ("unlisted-picture", copy(FIRST_JPEG, COCO + "/train/data/extra.jpg")),
]
