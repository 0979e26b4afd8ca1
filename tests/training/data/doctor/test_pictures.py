import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.doctor.pictures import MaskFacts, PictureFacts, inspect_mask, inspect_picture


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, size=(40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_sound_picture_has_facts_and_no_faults(photo: Path) -> None:
    facts = inspect_picture(photo)
    assert facts.sha256 == hashlib.sha256(photo.read_bytes()).hexdigest()
    assert facts.size == (60, 40)
    assert facts.faults == ()


def test_the_thumbnail_is_the_grey_picture_in_8_rows_of_9(tmp_path: Path) -> None:
    blocks = np.array([[30 * row + column for column in range(9)] for row in range(8)], dtype=np.uint8)
    pixels = np.kron(blocks, np.ones((10, 10), dtype=np.uint8))
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "blocks.png")
    thumbnail = inspect_picture(tmp_path / "blocks.png").thumbnail
    assert thumbnail is not None
    assert thumbnail.shape == (8, 9)
    assert np.abs(thumbnail.astype(int) - blocks).max() <= 8  # a bilinear filter takes a little of the neighbours


def test_a_turned_picture_is_measured_upright(photo: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(photo) as picture:
        picture.save(photo, exif=exif)
    facts = inspect_picture(photo)
    assert facts.size == (40, 60)
    assert [code for code, _ in facts.faults] == ["exif-rotated-picture"]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_every_cut_is_told_as_a_cut(suffix: str, photo: Path, tmp_path: Path) -> None:
    path = tmp_path / f"cut{suffix}"
    with Image.open(photo) as picture:
        picture.save(path)
    body = path.read_bytes()
    for keep in range(200, len(body) - 12, 97):
        path.write_bytes(body[:keep])
        assert [code for code, _ in inspect_picture(path).faults] == ["truncated-picture"]


@pytest.mark.parametrize("inspect", [inspect_picture, inspect_mask])
def test_what_cannot_be_opened_is_unreadable(
    inspect: Callable[[Path], PictureFacts | MaskFacts], tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    for path in (tmp_path / "text.png", tmp_path / "absent.png", tmp_path):
        assert [code for code, _ in inspect(path).faults] == ["unreadable-picture"]


def test_a_mask_is_counted_by_its_stored_values(tmp_path: Path) -> None:
    mask = np.array([[0, 0, 15], [15, 15, 255]], dtype=np.uint8)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    facts = inspect_mask(tmp_path / "mask.png")
    assert facts.size == (3, 2)
    assert facts.pixels_by_value is not None
    assert {value: count for value, count in enumerate(facts.pixels_by_value) if count} == {0: 2, 15: 3, 255: 1}
