from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.golden import GOLDEN_PICTURES
from service.pictures.imaging import decode, fit, letterbox
from service.pictures.resizing import RESIZER, RESIZERS, Resize, resize, resize_by_pillow, resize_fast
from tests.service.fakes import make_picture

needs_both = pytest.mark.skipif(len(RESIZERS) == 1, reason="fast_image_resize has no wheel for this machine")


def run(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_both
def test_the_fast_one_is_used_where_it_is_installed() -> None:
    assert RESIZER == "cykooz.resizer"
    picture = make_picture(48, 32)
    np.testing.assert_array_equal(resize(picture, 31, 17), resize_fast(picture, 31, 17))


def test_pillow_is_used_where_it_is_not(without_wheel: dict[str, str]) -> None:
    code = "from service.pictures import resizing; print(resizing.RESIZER, *resizing.RESIZERS)"
    assert run(without_wheel, sys.executable, "-c", code).split() == ["pillow", "pillow"]


@pytest.mark.parametrize("resizer", RESIZERS.values(), ids=RESIZERS)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 90), st.integers(1, 90))
def test_a_picture_gets_the_size_that_was_asked_for_and_keeps_its_colour(
    resizer: Resize, width: int, height: int, new_width: int, new_height: int
) -> None:
    grey = np.full((height, width, 3), (10, 130, 250), dtype=np.uint8)
    resized = resizer(grey, new_width, new_height)
    assert resized.shape == (new_height, new_width, 3)
    assert resized.dtype == np.uint8
    assert (resized == (10, 130, 250)).all()


@needs_both
@given(st.integers(0, 99), st.integers(1, 90), st.integers(1, 90), st.integers(1, 90), st.integers(1, 90))
def test_the_two_differ_by_two_levels_at_most(
    seed: int, width: int, height: int, new_width: int, new_height: int
) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    one, two = resize_fast(picture, new_width, new_height), resize_by_pillow(picture, new_width, new_height)
    assert np.abs(one.astype(int) - two).max() <= 2


@needs_both
@pytest.mark.parametrize("path", sorted(GOLDEN_PICTURES.glob("*.jpg")), ids=lambda path: path.stem)
def test_of_a_photograph_the_two_make_the_same_within_a_level(path: Path) -> None:
    picture = decode(path.read_bytes())
    for size in (160, 320, 512, 900):
        place = fit(picture.shape[1], picture.shape[0], size)
        width, height = place.resized_width, place.resized_height
        difference = np.abs(resize_fast(picture, width, height).astype(int) - resize_by_pillow(picture, width, height))
        assert difference.max() <= 1
        assert difference.mean() <= 0.25


@pytest.mark.parametrize("resizer", RESIZERS.values(), ids=RESIZERS)
def test_a_part_of_a_picture_and_a_mirrored_one_are_resized_as_they_look(resizer: Resize) -> None:
    picture = make_picture(64, 48)
    for part in (picture[5:40, 3:50], picture[:, ::-1]):
        np.testing.assert_array_equal(resizer(part, 20, 15), resizer(part.copy(), 20, 15))


def test_letterbox_takes_the_resizer_that_it_is_given() -> None:
    picture = make_picture(48, 24)
    square, _ = letterbox(
        picture, 32, (1, 2, 3), resize=lambda _, width, height: np.full((height, width, 3), 7, np.uint8)
    )
    assert (square[:16] == 7).all()


@pytest.mark.slow
def test_without_the_wheel_the_service_starts_checks_its_golden_answers_and_serves(
    without_wheel: dict[str, str],
) -> None:
    serve = str(Path(sysconfig.get_path("scripts")) / "unihead-serve")
    told = run(without_wheel, serve, "selftest")
    assert told.count("ok  ") == 5
    assert "4 pictures, resized by pillow" in told
