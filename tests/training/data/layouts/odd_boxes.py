"""Sets of boxes as exporters and people leave them: one sound COCO set, and one change to it a kind."""

import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

Document: TypeAlias = dict[str, Any]
Edit: TypeAlias = Callable[[Document, Path], object]
Write: TypeAlias = Callable[[Path], object]

WIDTH, HEIGHT = 64, 48
OUTLINE = [4, 5, 24, 5, 24, 17, 4, 17]


def draw(path: Path, *, width: int = WIDTH, height: int = HEIGHT) -> Path:
    """A picture that no other path has, in the format of its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(str(path).encode()))
    Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def make_document(split: str) -> Document:
    """Four pictures with one box each, of two classes in turn."""
    return {
        "images": [
            {"id": number, "file_name": f"{split}_{number}.jpg", "width": WIDTH, "height": HEIGHT}
            for number in range(1, 5)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": number,
                "category_id": 2 - number % 2,
                "bbox": [4.0, 5.0, 20.0, 12.0],
                "area": 240.0,
                "iscrowd": 0,
                "segmentation": [OUTLINE],
            }
            for number in range(1, 5)
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
    }


def coco(
    edit: Edit = lambda _document, _folder: None,
    *,
    splits: tuple[str, str] = ("train", "val"),
    listing: str = "{split}/labels.json",
    pictures: str = "data",
    encode: Callable[[Document], bytes] = lambda document: json.dumps(document).encode(),
) -> Write:
    """Write two splits after editing each document; `edit` also gets the folder of the pictures."""

    def write(root: Path) -> None:
        for split in splits:
            document, folder = make_document(split), root / split / pictures
            for row in document["images"]:
                draw(folder / row["file_name"])
            edit(document, folder)
            path = root / listing.format(split=split)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(document))

    return write


def rows(**changes: Callable[[Any], Any]) -> Edit:
    """Change fields of each annotation: `bbox=lambda row: ...`."""

    def edit(document: Document, _folder: Path) -> None:
        for row in document["annotations"]:
            row.update({key: change(row) for key, change in changes.items()})

    return edit


def without(key: str) -> Edit:
    return lambda document, _folder: [row.pop(key) for row in document["annotations"]]


def ids(change: Callable[[int], object], *, parts: str = "images annotations categories") -> Edit:
    """Number pictures, annotations or classes in another way, and whatever refers to them."""
    keys = {"images": ("id", "image_id"), "annotations": ("id", ""), "categories": ("id", "category_id")}

    def edit(document: Document, _folder: Path) -> None:
        for part in parts.split():
            own, reference = keys[part]
            for row in document[part]:
                row[own] = change(row[own])
            if reference:
                for row in document["annotations"]:
                    row[reference] = change(row[reference])

    return edit


def roboflow(document: Document, _folder: Path) -> None:
    """A class 0 that stands for all others, and no outlines."""
    document["info"] = {"description": "Exported from roboflow.com"}
    document["categories"] = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        *({**row, "supercategory": "animals"} for row in document["categories"]),
    ]
    for row in document["images"]:
        row.update(license=1, extra={"name": "a.jpg"})
    rows(segmentation=lambda _: [])(document, _folder)


def named(change: Callable[[str], str]) -> Edit:
    """Name pictures in another way than their files are."""

    def edit(document: Document, _folder: Path) -> None:
        for row in document["images"]:
            row["file_name"] = change(row["file_name"])

    return edit


def renamed(listed: Callable[[str], str], stored: Callable[[str], str]) -> Edit:
    """Rename the files too."""

    def edit(document: Document, folder: Path) -> None:
        for row in document["images"]:
            (folder / row["file_name"]).rename(folder / stored(row["file_name"]))
            row["file_name"] = listed(row["file_name"])

    return edit


def classes(**names: str) -> Edit:
    def edit(document: Document, _folder: Path) -> None:
        for row in document["categories"]:
            row["name"] = names[row["name"]]

    return edit


def litter(_document: Document, folder: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "._train_1.jpg", "desktop.ini"):
        (folder / name).write_bytes(b"\0\5\x16\7")


def linked(document: Document, folder: Path) -> None:
    """Half of the pictures lie elsewhere; one link leads nowhere."""
    store = folder.parents[2] / "store" / folder.parent.name
    store.mkdir(parents=True, exist_ok=True)
    for row in document["images"][:2]:
        path = folder / row["file_name"]
        shutil.move(path, store / path.name)
        path.symlink_to(store / path.name)
    (folder / "broken.jpg").symlink_to("/nowhere/broken.jpg")


def voc(box: tuple[object, object, object, object], *, newline: str = "\n") -> Write:
    """A development kit with boxes alone."""

    def write(root: Path) -> None:
        kit = root / "VOCdevkit" / "VOC2012"
        for folder in (kit / "Annotations", kit / "ImageSets" / "Main", kit / "ImageSets" / "Segmentation"):
            folder.mkdir(parents=True)
        for split in ("train", "val"):
            stems = [f"{split}{number}" for number in range(3)]
            for stem in stems:
                draw(kit / "JPEGImages" / f"{stem}.jpg")
                sides = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
                (kit / "Annotations" / f"{stem}.xml").write_text(
                    f"<annotation><filename>{stem}.jpg</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height>"
                    f"<depth>3</depth></size><object><name>dog</name><bndbox>{sides}</bndbox></object></annotation>"
                )
            for kind in ("Main", "Segmentation"):
                (kit / "ImageSets" / kind / f"{split}.txt").write_bytes(newline.join(stems).encode())

    return write


def yolo(root: Path) -> None:
    for split in ("train", "val"):
        for number in range(3):
            draw(root / "images" / split / f"{number}.jpg")
            path = root / "labels" / split / f"{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: {0: dog}\n")


def labelme(root: Path) -> None:
    for split in ("train", "val"):
        picture = draw(root / split / "0.jpg")
        shape = {"label": "dog", "points": [[1, 1], [20, 20]], "shape_type": "rectangle"}
        picture.with_suffix(".json").write_text(json.dumps({"version": "5.0.1", "shapes": [shape]}))


def nfd(name: str) -> str:
    return unicodedata.normalize("NFD", name)


# What a set is called, and how it is written.
BOXES: dict[str, Write] = {
    "coco_plain": coco(),
    "coco_float_ids": coco(ids(float)),
    "coco_string_ids": coco(ids(str, parts="images")),
    "coco_uuid_ids": coco(ids(lambda number: f"u{number}", parts="images")),
    "coco_category_zero": coco(ids(lambda number: number - 1, parts="categories")),
    "coco_dup_ids": coco(rows(id=lambda _: 1)),
    "coco_no_iscrowd": coco(without("iscrowd")),
    "coco_no_area": coco(without("area")),
    "coco_rle_string": coco(rows(segmentation=lambda _: {"size": [HEIGHT, WIDTH], "counts": "o?6Y11O1O00"})),
    "coco_rle_list": coco(
        rows(segmentation=lambda _: {"size": [HEIGHT, WIDTH], "counts": [100, 12, 36, 12, 2912]}, iscrowd=lambda _: 1)
    ),
    "coco_outline_null": coco(rows(segmentation=lambda _: None)),
    "coco_outline_empty": coco(rows(segmentation=lambda _: [])),
    "coco_bbox_text": coco(rows(bbox=lambda row: [str(side) for side in row["bbox"]])),
    "coco_bbox_empty": coco(rows(bbox=lambda _: [])),
    "coco_bbox_nan": coco(rows(bbox=lambda _: [float("nan"), 1, 5, 5])),
    "coco_bbox_nan_alone": coco(rows(bbox=lambda _: [float("nan"), 1, 5, 5], segmentation=lambda _: [])),
    "coco_bbox_negative": coco(rows(bbox=lambda _: [-3, -2, 20, 12])),
    "coco_keypoints_only": coco(without("bbox")),
    "coco_keypoints_alone": coco(rows(bbox=lambda _: None, segmentation=lambda _: None)),
    "roboflow": coco(roboflow, splits=("train", "valid"), listing="{split}/_annotations.coco.json", pictures=""),
    "roboflow_train_val": coco(roboflow, listing="{split}/_annotations.coco.json", pictures=""),
    "cvat": coco(rows(attributes=lambda _: {"occluded": False}), listing="annotations/instances_{split}.json"),
    "labelstudio": coco(named(lambda name: f"..\\..\\label-studio\\data\\media\\upload\\1\\{name}")),
    "labelstudio_prefix": coco(named(lambda name: f"images/{name}")),
    "coco_bom": coco(encode=lambda document: json.dumps(document).encode("utf-8-sig")),
    "coco_crlf": coco(encode=lambda document: json.dumps(document, indent=1).replace("\n", "\r\n").encode()),
    "coco_spaces_in_names": coco(classes(person="person ", dog=" dog")),
    "coco_unicode": coco(classes(person="人", dog="Hündin")),
    "coco_unicode_files": coco(renamed(lambda name: f"фото {name}", lambda name: f"фото {name}")),
    "coco_nfd_files": coco(renamed(lambda name: f"\u00e9{name}", lambda name: nfd(f"\u00e9{name}"))),
    "coco_upper_ending": coco(renamed(lambda name: name, lambda name: name.replace(".jpg", ".JPG"))),
    "coco_hidden_files": coco(litter),
    "coco_symlinks": coco(linked),
    "coco_no_annotations": coco(lambda document, _: document.pop("annotations")),
    "coco_list_top": coco(encode=lambda document: json.dumps([document]).encode()),
    "coco_empty_file": coco(encode=lambda _: b""),
    "coco_json_lines": coco(encode=lambda document: b"\n".join(json.dumps(row).encode() for row in document["images"])),
    "voc_xml_only": voc((5, 5, 20, 20)),
    "voc_floats": voc(("45.7", "5.0", "60.2", "20.9")),
    "voc_zero_based": voc((0, 0, 63, 47)),
    "voc_crlf": voc((5, 5, 20, 20), newline="\r\n"),
    "yolo": yolo,
    "labelme": labelme,
}
