import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.v2 import functional

from service.pictures.imaging import UInt8Array
from training.data.colour import adjust_colours, colour_jitter


def make_image() -> UInt8Array:
    """Random blocks of 4 x 4 pixels, none so bright or dark that a factor of 1.4 would clip it."""
    blocks = np.random.default_rng(0).integers(70, 150, (12, 16, 3), dtype=np.uint8)
    return blocks.repeat(4, axis=0).repeat(4, axis=1)


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.0, 1.4])
@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation"])
def test_each_factor_does_what_torchvisions_does(kind: str, factor: float) -> None:
    factors = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0} | {kind: factor}
    expected = np.asarray(getattr(functional, f"adjust_{kind}")(Image.fromarray(make_image()), factor))
    assert np.abs(adjust_colours(make_image(), **factors).astype(int) - expected).max() <= 1


def test_together_they_are_torchvisions_one_after_the_other() -> None:
    picture = Image.fromarray(make_image())
    for kind, factor in (("brightness", 1.2), ("contrast", 0.7), ("saturation", 1.3)):
        picture = getattr(functional, f"adjust_{kind}")(picture, factor)
    adjusted = adjust_colours(make_image(), brightness=1.2, contrast=0.7, saturation=1.3)
    assert np.abs(adjusted.astype(int) - np.asarray(picture)).max() <= 3


def test_values_are_clipped_and_do_not_wrap() -> None:
    white = np.full((4, 4, 3), 250, dtype=np.uint8)
    assert (adjust_colours(white, brightness=1.5, contrast=1, saturation=1) == 255).all()


def test_without_strength_nothing_changes_and_nothing_is_drawn() -> None:
    rng = np.random.default_rng(0)
    assert np.array_equal(colour_jitter(rng, make_image(), 0), make_image())
    assert rng.random() == np.random.default_rng(0).random()


def test_strength_bounds_the_change_and_the_seed_decides_it() -> None:
    image = make_image()
    first, again, other = (colour_jitter(np.random.default_rng(seed), image, 0.2) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    means = [colour_jitter(np.random.default_rng(seed), image, 0.2).mean() / image.mean() for seed in range(50)]
    assert 0.79 < min(means) < 0.87
    assert 1.13 < max(means) < 1.21
    assert np.array_equal(image, make_image())
