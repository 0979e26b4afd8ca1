import pytest
from pydantic import ValidationError

from training.options.augment import AugmentConfig


def test_the_defaults_are_the_letterbox_of_serving() -> None:
    assert AugmentConfig().is_letterbox
    assert not AugmentConfig(scale=(0.9, 1.0)).is_letterbox
    assert not AugmentConfig(stretch=0.1).is_letterbox


@pytest.mark.parametrize("scale", [(0.0, 1.0), (-1.0, 1.0), (1.2, 1.1)])
def test_a_scale_that_is_no_range_is_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="0 < low <= high"):
        AugmentConfig(scale=scale)


def test_focus_without_anything_to_crop_is_refused() -> None:
    with pytest.raises(ValidationError, match="crops nothing"):
        AugmentConfig(focus=0.5, scale=(0.5, 1.0))
    assert AugmentConfig(focus=0.5, scale=(0.5, 1.5)).focus == 0.5


@pytest.mark.parametrize(
    "wrong", [{"mosaic": 1.1}, {"colour": -0.1}, {"sizes": [500]}, {"sizes": [0]}, {"rand_augment": -1}, {"hue": 0.1}]
)
def test_values_out_of_range_and_unknown_keys_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AugmentConfig.model_validate(wrong)


def test_sizes_are_multiples_of_the_coarsest_stride() -> None:
    assert AugmentConfig.model_validate({"sizes": [448, 512]}).sizes == (448, 512)
