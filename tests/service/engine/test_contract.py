from __future__ import annotations

import json
from typing import Any

import pytest

from service.engine.contract import GoldenAnswer, GoldenDetection, LetterboxRule, parse_contract
from service.errors import ContractError
from tests.service.fakes import make_contract


def test_a_contract_survives_the_way_through_json() -> None:
    golden = GoldenAnswer(
        file="a.jpg",
        sha256="00",
        class_probs=(0.5, 0.25, 0.25),
        detections=(GoldenDetection((1.0, 2.0, 3.5, 4.0), "car", 0.75),),
        mask_fractions={"background": 1.0},
    )
    contract = make_contract(golden=(golden,), metrics={"miou": 0.3}, letterbox=LetterboxRule(fill=(1, 2, 3)))
    assert parse_contract(contract.to_json()) == contract


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format is 2"),
        ({"surprise": 1}, "surprise"),
        ({"letterbox": {"fill": [0, 0, 0], "anchor": "centre"}}, "anchor is 'centre'"),
        ({"letterbox": {"fill": [0, 0], "anchor": "top-left"}}, "cannot be read"),
        ({"input_size": 30}, "multiple of mask_stride"),
        ({"input_size": 0}, "multiple of mask_stride"),
        ({"detection_classes": ["car", "car"]}, "detection_classes"),
        ({"segmentation_classes": []}, "segmentation_classes"),
        ({"golden": [{"file": "a.jpg"}]}, "cannot be read"),
        ({"score_threshold": 1.5}, "score_threshold must be from 0 to 1; got 1.5"),
        ({"score_threshold": -0.1}, "score_threshold must be from 0 to 1"),
        ({"score_threshold": "high"}, "score_threshold must be from 0 to 1; got 'high'"),
        ({"score_threshold": float("nan")}, "score_threshold must be from 0 to 1; got nan"),
    ],
)
def test_a_contract_that_this_service_does_not_know_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        parse_contract(json.dumps(json.loads(make_contract().to_json()) | change))


def test_a_file_from_before_scores_were_calibrated_says_what_was_true_of_it() -> None:
    values = json.loads(make_contract().to_json())
    for name in ("score_threshold", "score_scale", "score_bias", "class_temperature"):
        del values[name]
    contract = parse_contract(json.dumps(values))
    assert (contract.score_threshold, contract.score_scale) == (0.3, 1.0)
    assert (contract.score_bias, contract.class_temperature) == (0.0, 1.0)


def test_a_missing_key_is_named() -> None:
    values = json.loads(make_contract().to_json())
    del values["preset"]
    with pytest.raises(ContractError, match="preset"):
        parse_contract(json.dumps(values))


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null"])
def test_what_is_no_contract_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match="cannot be read"):
        parse_contract(text)
