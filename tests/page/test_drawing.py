"""What is on the canvas: mask and boxes where the service saw them, the right way up, as the sliders say."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from service.answers.render import encode_mask
from service.pictures.imaging import UInt8Array, decode
from tests.page.browser import CHELSEA, Record, colour, pixel, texts, wait_for_answer

pytestmark = pytest.mark.full

EYE, EAR = (225, 130), (440, 100)  # of the cat: inside its mask; in the background
WIDTH, HEIGHT = 451, 300  # of its picture


@pytest.fixture
def cat(page: Page, noted: Record) -> Page:
    page.set_input_files("#file", CHELSEA)
    wait_for_answer(page)
    assert len(noted.questions) == 1
    return page


def far(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def test_the_opacity_slider_tints_the_classes_and_nothing_else(cat: Page, noted: Record) -> None:
    with Image.open(CHELSEA) as picture:
        eye, ear = picture.getpixel(EYE), picture.getpixel(EAR)
    assert isinstance(eye, tuple)
    assert isinstance(ear, tuple)
    cat.locator("#opacity").fill("0")
    assert far(pixel(cat, EYE, WIDTH), eye) < 25  # enlarged, and decoded by another decoder
    cat.locator("#opacity").fill("100")
    assert cat.locator("#opacity-value").inner_text() == "100 %"
    tint = colour(cat, "#segments button .swatch")
    assert far(pixel(cat, EYE, WIDTH), tint) < 3
    assert far(pixel(cat, EAR, WIDTH), ear) < 25
    cat.locator("#opacity").fill("50")
    assert far(pixel(cat, EYE, WIDTH), tuple((a + b) // 2 for a, b in zip(tint, eye, strict=True))) < 15
    assert len(noted.questions) == 1


def test_a_class_is_switched_off_and_on_in_the_legend(cat: Page, noted: Record) -> None:
    cat.locator("#opacity").fill("100")
    tinted = pixel(cat, EYE, WIDTH)
    row = cat.get_by_role("button", name="cat 84 %")
    row.click()
    assert row.get_attribute("aria-pressed") == "false"
    assert far(pixel(cat, EYE, WIDTH), tinted) > 60
    row.press("Space")
    assert row.get_attribute("aria-pressed") == "true"
    assert pixel(cat, EYE, WIDTH) == tinted
    assert len(noted.questions) == 1


def test_the_threshold_slider_shows_boxes_that_the_service_would_have_sent(cat: Page, noted: Record) -> None:
    cat.locator("#opacity").fill("0")
    side = (18.61, 150)  # of the best box; docs and golden answers have it
    drawn = pixel(cat, side, WIDTH)
    assert far(drawn, colour(cat, "#boxes .swatch", "borderTopColor")) < 3
    cat.locator("#threshold").fill("5")
    many = len(texts(cat, "#boxes"))
    assert many > 10
    assert cat.locator("#boxes-count").inner_text() == f"{many} of {many}"
    cat.locator("#threshold").fill("47")
    assert texts(cat, "#boxes") == []
    assert far(pixel(cat, side, WIDTH), drawn) > 60
    expect(cat.locator("#summary")).to_contain_text("No box scores 47 % or more.")
    assert "score_threshold=0.47" in cat.locator("#curl").inner_text()
    assert len(noted.questions) == 1


def test_class_ids_are_read_back_from_the_colours_of_a_mask(page: Page, noted: Record) -> None:
    ids = np.arange(256, dtype=np.uint8).reshape(8, 32)
    found = page.evaluate(
        """async (base64) => {
          const { readClassIds } = await import("./static/page/picture.js");
          return [...(await readClassIds(base64, { width: 32, height: 8 }))];
        }""",
        base64.b64encode(encode_mask(ids)).decode(),
    )
    assert found == ids.ravel().tolist()
    assert noted.questions == []


def look_at(page: Page, body: bytes, kind: str) -> UInt8Array:
    """[H, W, 3] of a picture as the page decodes it."""
    width, height, data = page.evaluate(
        """async ([base64, type]) => {
          const { loadPicture } = await import("./static/page/picture.js");
          const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
          const { canvas } = await loadPicture(new Blob([bytes], { type }));
          const { width, height } = canvas;
          return [width, height, [...canvas.getContext("2d").getImageData(0, 0, width, height).data]];
        }""",
        [base64.b64encode(body).decode(), kind],
    )
    return np.array(data, dtype=np.uint8).reshape(height, width, 4)[..., :3]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_browser_and_service_turn_pictures_alike(page: Page, noted: Record, kind: str) -> None:
    picture = Image.new("RGB", (48, 32), "white")
    picture.paste((200, 30, 30), (0, 0, 16, 16))
    picture.paste((30, 30, 200), (32, 16, 48, 32))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = io.BytesIO()
        picture.save(file, kind, exif=exif.tobytes(), quality=95)
        for declared in (f"image/{kind.lower()}", ""):
            seen, wanted = look_at(page, file.getvalue(), declared), decode(file.getvalue())
            assert seen.shape == wanted.shape
            assert np.abs(seen.astype(int) - wanted).mean() < 4, orientation
    assert noted.questions == []


def test_transparency_lies_over_white_as_in_the_service(page: Page, noted: Record) -> None:
    file = io.BytesIO()
    Image.new("RGBA", (16, 16), (200, 0, 0, 128)).save(file, "PNG")
    assert np.abs(look_at(page, file.getvalue(), "image/png").astype(int) - decode(file.getvalue())).max() <= 2
    assert noted.questions == []


def test_a_large_picture_is_drawn_small_with_its_boxes_in_place(page: Page, noted: Record) -> None:
    file = io.BytesIO()
    with Image.open(CHELSEA) as picture:
        picture.resize((WIDTH * 9, HEIGHT * 9)).save(file, "JPEG", quality=85)
    page.set_input_files("#file", {"name": "large.jpg", "mimeType": "image/jpeg", "buffer": file.getvalue()})
    wait_for_answer(page)
    assert page.evaluate("document.getElementById('canvas').width") <= 1280
    page.locator("#opacity").fill("100")
    assert far(pixel(page, (EYE[0] * 9, EYE[1] * 9), WIDTH * 9), colour(page, "#segments button .swatch")) < 3
    assert len(noted.questions) == 1
