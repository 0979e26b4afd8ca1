from __future__ import annotations

import pytest
from pydantic import BaseModel

from service.answers import schemas
from service.engine import postprocess

RESPONSES = [
    schemas.SegmentResponse,
    schemas.DetectResponse,
    schemas.ClassifyResponse,
    schemas.PredictResponse,
]


@pytest.mark.parametrize("shape", RESPONSES)
def test_the_example_in_docs_has_the_shape_it_illustrates(shape: type[BaseModel]) -> None:
    example = shape.model_json_schema()["example"]
    assert shape.model_validate(example).model_dump(exclude_none=True) == example
    assert set(example) == set(shape.model_fields)


def test_boxes_are_rounded_to_hundredths_and_scores_to_millionths() -> None:
    found = postprocess.Detection((1.23456, 0.0, 9.999, 100.004999), "cat", 15, 0.12345678)
    told = schemas.Detection.of(found)
    assert (told.box, told.score) == ([1.23, 0.0, 10.0, 100.0], 0.123457)


def test_probabilities_and_fractions_are_rounded_to_millionths() -> None:
    assert schemas.ClassScore.of(postprocess.ClassScore("cat", 0, 1 / 3)).probability == 0.333333
    assert schemas.Segment.of(postprocess.Segment("cat", 8, 5, 2 / 3)).fraction == 0.666667


def test_a_mask_is_base64() -> None:
    assert schemas.PngMask.of(b"\x89PNG").model_dump() == {"encoding": "png", "data": "iVBORw=="}
