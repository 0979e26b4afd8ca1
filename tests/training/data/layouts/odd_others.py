"""Sets of class folders and of masks as people have them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from tests.training.data.layouts.odd_boxes import HEIGHT, WIDTH, Write, draw


def folders(
    extra: Callable[[Path], object] = lambda _root: None,
    *,
    classes: tuple[str, ...] = ("cat", "dog"),
    ending: str = "jpg",
) -> Write:
    """Three pictures of each class in each split."""

    def write(root: Path) -> None:
        for split in ("train", "val"):
            for name in classes:
                for number in range(3):
                    draw(root / split / name / f"{split}_{number}.{ending}")
        extra(root)

    return write


def litter(root: Path) -> None:
    for split in ("train", "val"):
        for name in (".DS_Store", "cat/.DS_Store", "cat/Thumbs.db", "dog/._a.jpg"):
            (root / split / name).write_bytes(b"\0\5\x16\7")
        for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
            (root / split / name).mkdir()


def link(name: str, target: str) -> Callable[[Path], object]:
    def add(root: Path) -> None:
        for split in ("train", "val"):
            (root / split / name).symlink_to(os.path.normpath(root / split / target))

    return add


def fake_jpegs(root: Path) -> None:
    for split, level in (("train", 10), ("val", 200)):
        Image.new("RGB", (8, 8), (level,) * 3).save(root / split / "cat" / f"fake_{split}.jpg", "PNG")


def masks(
    values: tuple[int, ...], *, mode: str = "L", ending: str = "png", convert: str = "", dtype: DTypeLike = np.uint8
) -> Write:
    """Three pictures a split with a mask beside each, whose values lie in stripes."""

    def write(root: Path) -> None:
        stripes: NDArray[Any] = np.repeat(np.array(values, dtype=dtype), -(-WIDTH // len(values)))[:WIDTH]
        for split in ("train", "val"):
            for number in range(3):
                picture = draw(root / split / f"{split}{number}.jpg")
                mask = Image.fromarray(np.tile(stripes, (HEIGHT, 1)))
                if mode == "P":
                    mask.putpalette(list(range(256)) * 3)
                mask = mask.convert(convert) if convert else mask
                mask.save(picture.with_suffix(f".{ending}"))

    return write


OTHERS: dict[str, Write] = {
    "folders_plain": folders(),
    "folders_hidden": folders(litter),
    "folders_unicode": folders(classes=("猫", "chien été", "a'b&c<d>")),
    "folders_symlink": folders(link("bird", "cat")),
    "folders_loop": folders(link("cat/loop", ".")),
    "folders_webp": folders(ending="webp"),
    "folders_bmp": folders(ending="bmp"),
    "folders_gif": folders(ending="gif"),
    "folders_case": folders(classes=("Cat", "cat")),
    "folders_png_named_jpg": folders(fake_jpegs),
    "folders_test_too": folders(lambda root: [draw(root / "test" / name / "t.jpg") for name in ("cat", "dog")]),
    "masks_palette": masks((0, 1, 2), mode="P"),
    "masks_grey": masks((0, 1, 2)),
    "masks_16_bit": masks((0, 1, 2), dtype=np.uint16),
    "masks_1_bit": masks((0, 1), dtype=np.bool_),
    "masks_0_255": masks((0, 255)),
    "masks_with_gaps": masks((0, 128, 255)),
    "masks_one_value": masks((0,)),
    "masks_rgb": masks((0, 1, 2), mode="P", convert="RGB"),
    "masks_rgba": masks((0, 1, 2), mode="P", convert="RGBA"),
    "masks_jpeg": masks((0, 1, 2), ending="jpeg"),
}
