"""Which pictures are shown, and whether annotations land on the pixels that they name."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.doctor.findings import Picture, PictureBox, SetSummary, SplitSummary
from training.data.doctor.html.contact_sheet import FRAME_PX, colours_of_set, draw_sample, make_samples
from training.data.doctor.html.drawing import (
    MASK_OPACITY,
    UNKNOWN_COLOUR,
    VOID_COLOUR,
    VOID_OPACITY,
    Colour,
    draw_boxes,
    make_colours,
    tint,
)
from training.data.taxonomy import VOC

GREY = (100, 100, 100)
RED = {"cat": (255, 0, 0)}


def make_picture(folder: Path, name: str, *, split: str = "train", label: str | None = None) -> Picture:
    path = folder / name
    Image.new("RGB", (56, 42), GREY).save(path)
    return Picture(path, 56, 42, split, label=label)


def make_set(pictures: Sequence[Picture], task: str = "classification") -> SetSummary:
    splits = tuple(
        SplitSummary(name, 0, {each.label or "": 1 for each in pictures}, (), ()) for name in ("train", "val")
    )
    return SetSummary("some set", task, "class folders", Path(), splits, tuple(pictures))


def write_mask(path: Path, ids: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> Path:
    mask = Image.fromarray(ids)
    mask.putpalette([0, 0, 0] * 256)
    mask.save(path)
    return path


def test_nine_samples_show_nine_classes_of_both_splits(tmp_path: Path) -> None:
    pictures = [
        make_picture(tmp_path, f"{split}-{index}.png", split=split, label=f"class {index % 9}")
        for split in ("train", "val")
        for index in range(27)
    ]
    samples = make_samples(make_set(pictures), {})
    assert len({sample.picture.label for sample in samples}) == 9
    assert [sample.picture.split for sample in samples].count("val") in {4, 5}


def test_the_choice_does_not_depend_on_the_order_of_files(tmp_path: Path) -> None:
    pictures = [make_picture(tmp_path, f"{index}.png", label=f"class {index % 3}") for index in range(30)]
    there, back = make_samples(make_set(pictures), {}), make_samples(make_set(pictures[::-1]), {})
    assert [sample.picture for sample in there] == [sample.picture for sample in back]


def test_three_pictures_with_faults_come_first(tmp_path: Path) -> None:
    pictures = [make_picture(tmp_path, f"{index}.png", label="class") for index in range(40)]
    faulty = {picture.path: ["truncated-picture"] for picture in pictures[:6]}
    shown = [sample.picture.path in faulty for sample in make_samples(make_set(pictures), faulty)]
    assert shown == [True] * 3 + [False] * 6


def test_fewer_pictures_than_places_are_all_shown(tmp_path: Path) -> None:
    pictures = [make_picture(tmp_path, f"{index}.png", label="class") for index in range(4)]
    assert len(make_samples(make_set(pictures), {pictures[0].path: ["near-duplicate"]})) == 4


def test_boxes_are_scaled_with_their_picture(tmp_path: Path) -> None:
    picture = make_picture(tmp_path, "a.png")
    boxed = Picture(picture.path, 56, 42, "train", boxes=(("cat", (10, 20, 30, 40), False),))
    pixels = draw_sample(boxed, RED).pixels
    assert pixels is not None
    assert pixels.shape == (FRAME_PX[1], FRAME_PX[0], 3)  # ten times as large
    red = np.argwhere((pixels == RED["cat"]).all(axis=2))
    rows, columns = red[red[:, 0] > 250].T  # below the name
    assert (columns.min(), columns.max(), rows.max()) == (100, 299, 399)
    assert tuple(pixels[300, 200]) == GREY  # nothing inside


@pytest.mark.parametrize("box", [(10.0, 30.0, 60.0, 90.0), (60.0, 90.0, 10.0, 30.0)], ids=["in order", "inverted"])
def test_a_box_is_drawn_on_its_own_pixels(box: tuple[float, float, float, float]) -> None:
    pixels = draw_boxes(np.zeros((100, 100, 3), dtype=np.uint8), [("cat", box, False)], RED)
    corners = [(30, 10), (30, 59), (89, 10), (89, 59)]
    assert all(tuple(pixels[corner]) == RED["cat"] for corner in corners)
    assert not (pixels[33:87, 13:57] == RED["cat"]).all(axis=2).any()
    assert not pixels[92:].any()


def test_a_crowd_is_dashed() -> None:
    image = np.zeros((200, 200, 3), dtype=np.uint8)
    boxes: list[PictureBox] = [("cat", (20, 50, 180, 190), is_crowd) for is_crowd in (False, True)]
    whole, dashed = (draw_boxes(image, [box], RED)[188, 20:180, 0] for box in boxes)
    assert (whole == 255).all()
    assert 60 < (dashed == 255).sum() < 100


@pytest.mark.parametrize(
    "box",
    [("cat", (-1e12, -5, 1e12, float("inf")), False), ("cat", (float("nan"), 3, 3, 3), True), ("", (5, 5, 5, 5), True)],
)
def test_hopeless_boxes_break_nothing(box: PictureBox) -> None:
    assert draw_boxes(np.zeros((50, 50, 3), dtype=np.uint8), [box], RED).shape == (50, 50, 3)


def test_mask_colours_are_those_of_the_classes() -> None:
    image = np.full((1, 4, 3), 100, dtype=np.uint8)
    colours = make_colours(VOC)
    pixels = tint(image, np.array([[0, 8, 255, 77]], dtype=np.uint8), VOC, colours)

    def mixed(colour: Colour, opacity: float) -> tuple[int, ...]:
        return tuple(round(100 + (value - 100) * opacity) for value in colour)

    wanted = [GREY, mixed(colours["cat"], MASK_OPACITY), mixed(VOID_COLOUR, VOID_OPACITY)]
    assert [tuple(pixel) for pixel in pixels[0]] == [*wanted, mixed(UNKNOWN_COLOUR, MASK_OPACITY)]


def test_a_mask_lies_over_its_picture_and_names_its_classes(tmp_path: Path) -> None:
    ids = np.zeros((42, 56), dtype=np.uint8)
    ids[:, 28:], ids[:10, :10], ids[41] = 15, 99, 255
    mask = write_mask(tmp_path / "mask.png", ids)
    picture = Picture(make_picture(tmp_path, "a.png").path, 56, 42, "val", mask=mask)
    summary = make_set([picture], "segmentation")
    (sample,) = make_samples(summary, {})
    assert sample.classes == (("person", 41 * 28), ("value 99", 100))
    assert sample.pixels is not None
    person = colours_of_set(summary)["person"]
    assert tuple(sample.pixels[200, 281]) == tuple(round(100 + (c - 100) * MASK_OPACITY) for c in person)
    assert tuple(sample.pixels[200, 279]) == GREY
    assert sample.note == ""


def test_a_mask_that_is_no_mask_is_named(tmp_path: Path) -> None:
    picture = make_picture(tmp_path, "a.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    for mask in (picture.path, tmp_path / "broken.png", tmp_path / "absent.png"):
        sample = draw_sample(Picture(picture.path, 56, 42, "val", mask=mask), {})
        assert "no readable map" in sample.note
        assert sample.pixels is not None
    small = write_mask(tmp_path / "small.png", np.zeros((21, 28), dtype=np.uint8))
    assert "28 x 21" in draw_sample(Picture(picture.path, 56, 42, "val", mask=small), {}).note
