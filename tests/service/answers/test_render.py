from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from service.answers.render import encode_mask, make_voc_palette, overlay
from service.engine.postprocess import Detection
from tests.service.fakes import make_picture


@pytest.mark.parametrize(
    ("class_id", "colour"),
    # From the VOC 2012 development kit: background, aeroplane, bicycle, cat, person, tvmonitor, void.
    [
        (0, (0, 0, 0)),
        (1, (128, 0, 0)),
        (2, (0, 128, 0)),
        (8, (64, 0, 0)),
        (15, (192, 128, 128)),
        (20, (0, 64, 128)),
        (255, (224, 224, 192)),
    ],
)
def test_the_palette_is_that_of_voc(class_id: int, colour: tuple[int, int, int]) -> None:
    assert tuple(make_voc_palette()[class_id].tolist()) == colour


def test_all_colours_differ() -> None:
    assert len(np.unique(make_voc_palette(), axis=0)) == 256


def test_the_png_holds_class_ids_under_voc_colours() -> None:
    class_ids = np.arange(256, dtype=np.uint8).reshape(8, 32)
    picture = Image.open(io.BytesIO(encode_mask(class_ids)))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "P", (32, 8))
    np.testing.assert_array_equal(np.asarray(picture), class_ids)
    np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), make_voc_palette()[class_ids])


def test_an_overlay_of_nothing_is_the_picture() -> None:
    image = make_picture()
    np.testing.assert_array_equal(overlay(image), image)
    np.testing.assert_array_equal(overlay(image, np.zeros(image.shape[:2], dtype=np.uint8)), image)


def test_segments_are_tinted_outlined_and_the_callers_picture_stays() -> None:
    image = np.full((20, 20, 3), 100, dtype=np.uint8)
    class_ids = np.zeros((20, 20), dtype=np.uint8)
    class_ids[5:15, 5:15] = 1
    drawn = overlay(image, class_ids, opacity=0.5)
    assert drawn[0, 0].tolist() == [100, 100, 100]
    colour = drawn[5, 10]
    assert drawn[14, 5].tolist() == drawn[5, 5].tolist() == colour.tolist()
    assert np.ptp(colour) > 100
    np.testing.assert_allclose(drawn[10, 10], 100 + (colour - 100.0) / 2, atol=1)
    assert (image == 100).all()


def test_what_is_in_one_picture_can_be_told_apart_and_a_box_has_its_segments_colour() -> None:
    image, class_ids = np.zeros((60, 60, 3), dtype=np.uint8), np.zeros((60, 60), dtype=np.uint8)
    class_ids[10:50, 2:20], class_ids[10:50, 40:58] = 2, 15  # thirteen steps of the golden ratio are nearly a circle
    box = Detection((22, 20, 38, 40), "person", 0, 0.5)
    drawn = overlay(image, class_ids, [box], names={2: "bicycle", 15: "person"}, opacity=1)
    bicycle, person = drawn[45, 10].astype(int), drawn[45, 50].astype(int)
    assert np.abs(bicycle - person).max() > 100
    assert (drawn[39, 22:38] == person).all(axis=1).any()
    assert not (drawn[39, 22:38] == bicycle).all(axis=1).any()


@pytest.mark.parametrize("level", [0, 128, 255])
def test_boxes_and_labels_stand_out_on_any_ground(level: int) -> None:
    image = np.full((200, 300, 3), level, dtype=np.uint8)
    drawn = overlay(image, detections=[Detection((50, 60, 250, 190), "bicycle", 1, 0.87)])
    tag = drawn[40:60, 50:110].reshape(-1, 3)
    luma = tag @ np.array([0.299, 0.587, 0.114])
    assert np.ptp(luma) > 75
    assert (drawn[120, 48:53] != level).any()
    assert (drawn[120, 100:200] == level).all()


@pytest.mark.parametrize(
    "box", [(0, 0, 300, 200), (-5, -5, 400, 400), (299, 199, 300, 200), (290, 3, 299, 9), (7, 7, 7, 7)]
)
def test_labels_stay_inside_the_picture(box: tuple[float, float, float, float]) -> None:
    image = np.zeros((200, 300, 3), dtype=np.uint8)
    drawn = overlay(image, detections=[Detection(box, "traffic light", 9, 1.0)])
    assert drawn.shape == image.shape
    assert drawn.any()


def test_the_best_box_lies_on_top() -> None:
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    best, other = Detection((20, 40, 80, 80), "a", 0, 0.9), Detection((20, 40, 80, 80), "a", 3, 0.5)
    alone = overlay(image, detections=[best])
    np.testing.assert_array_equal(overlay(image, detections=[best, other])[60, 20], alone[60, 20])
