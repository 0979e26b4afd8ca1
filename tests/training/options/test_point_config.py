import pytest
from pydantic import ValidationError

from training.options.model import PointDetectionConfig


@pytest.mark.parametrize(
    "fault",
    [
        {"assigner": "center"},
        {"score_loss": "bce"},
        {"centre_radius": 0},
        {"reach": 0},
        {"top_k": 0},
        {"warmup": 1.1},
        {"box_weight": -1},
        {"unknown": 1},
    ],
)
def test_a_value_out_of_its_range_or_an_unknown_key_is_refused(fault: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fault))):
        PointDetectionConfig.model_validate(fault)


def test_a_configuration_does_not_change() -> None:
    config = PointDetectionConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.top_k = 3  # type: ignore[misc]  # the refusal is what is tested
