import math

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from service.engine.contract import LetterboxRule
from service.pictures.imaging import UInt8Array
from training.data.rand_augment import OPERATIONS, rand_augment

FILL = list(LetterboxRule().fill)


def make_image() -> UInt8Array:
    blocks = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return blocks.repeat(5, axis=0).repeat(5, axis=1)


def apply(name: str, level: float) -> UInt8Array:
    return np.asarray(OPERATIONS[name](Image.fromarray(make_image()), level))


@pytest.mark.parametrize(
    ("name", "level", "function", "argument"),
    [
        ("brightness", 0.5, "adjust_brightness", 1.45),
        ("brightness", -0.5, "adjust_brightness", 0.55),
        ("colour", -1.0, "adjust_saturation", 0.1),
        ("contrast", 0.3, "adjust_contrast", 1.27),
        ("sharpness", 1.0, "adjust_sharpness", 1.9),
        ("posterize", -1.0, "posterize", 4),
        ("posterize", 0.5, "posterize", 6),
        ("solarize", 0.4, "solarize", 153),
    ],
)
def test_an_operation_is_torchvisions_at_the_level_of_its_table(
    name: str, level: float, function: str, argument: float
) -> None:
    expected = np.asarray(getattr(functional, function)(Image.fromarray(make_image()), argument))
    assert np.array_equal(apply(name, level), expected)


def test_autocontrast_and_equalize_are_torchvisions() -> None:
    for name in ("autocontrast", "equalize"):
        assert np.array_equal(apply(name, 0.5), np.asarray(getattr(functional, name)(Image.fromarray(make_image()))))


@pytest.mark.parametrize("level", [-1.0, 0.5])
def test_rotation_and_shear_are_torchvisions(level: float) -> None:
    picture, slant = Image.fromarray(make_image()), math.degrees(math.atan(level * 0.3))
    options = {"interpolation": InterpolationMode.BILINEAR, "fill": FILL}
    turned = functional.rotate(picture, level * 30, **options)
    assert np.array_equal(apply("rotate", level), np.asarray(turned))
    for name, shear in (("shear_x", [slant, 0.0]), ("shear_y", [0.0, slant])):
        sheared = functional.affine(picture, 0.0, [0, 0], 1.0, shear, center=[0, 0], **options)
        difference = np.abs(apply(name, level).astype(int) - np.asarray(sheared))
        assert difference.mean() < 6  # torchvision turns about the pixel's centre, Pillow about its corner


def test_translation_shows_what_lay_beside_and_fills_the_rest() -> None:
    level = 20 * 331 / 150 / 80  # 20 px of 80
    moved = apply("translate_x", level)
    assert np.array_equal(moved[:, :60], make_image()[:, 20:])
    assert (moved[:, 60:] == FILL).all()
    moved = apply("translate_y", -15 * 331 / 150 / 60)
    assert np.array_equal(moved[15:], make_image()[:45])
    assert (moved[:15] == FILL).all()


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"autocontrast", "equalize", "solarize"}))
def test_at_level_zero_an_operation_changes_nothing(name: str) -> None:
    assert np.array_equal(apply(name, 0), make_image())


def test_without_operations_nothing_changes_and_nothing_is_drawn() -> None:
    rng = np.random.default_rng(0)
    assert np.array_equal(rand_augment(rng, make_image(), 0, 1), make_image())
    assert rng.random() == np.random.default_rng(0).random()


def test_the_seed_decides_which_operations_and_both_directions_occur() -> None:
    results = [rand_augment(np.random.default_rng(seed), make_image(), 1, 0.5) for seed in range(200)]
    assert np.array_equal(results[7], rand_augment(np.random.default_rng(7), make_image(), 1, 0.5))
    assert all(result.shape == (60, 80, 3) and result.dtype == np.uint8 for result in results)
    drawn = {result.tobytes() for result in results}
    both = {apply(name, level).tobytes() for name in OPERATIONS for level in (-0.5, 0.5)}
    assert drawn == both


def test_operations_follow_one_another() -> None:
    rng = np.random.default_rng(3)
    once = rand_augment(rng, make_image(), 3, 0.5)
    assert not any(np.array_equal(once, apply(name, level)) for name in OPERATIONS for level in (-0.5, 0.5))
