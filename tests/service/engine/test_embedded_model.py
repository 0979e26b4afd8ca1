from __future__ import annotations

import hashlib

import numpy as np
import pytest

from service.engine.contract import GoldenAnswer
from service.engine.engine import Engine, load_engine
from service.engine.postprocess import Answer
from service.pictures.imaging import decode, letterbox
from service.settings import Settings
from tests.service.fakes import GOLDEN

MODEL = Settings.model_fields["model"].default
PICTURES = sorted(path.name for path in GOLDEN.glob("*.jpg"))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine(MODEL, threads=2)


def find_golden(engine: Engine, name: str) -> GoldenAnswer:
    return next(golden for golden in engine.contract.golden if golden.file == name)


def test_the_contract_answers_for_every_shipped_picture(engine: Engine) -> None:
    assert sorted(golden.file for golden in engine.contract.golden) == PICTURES


def test_the_sha256_is_that_of_the_file(engine: Engine) -> None:
    assert engine.sha256 == hashlib.sha256(MODEL.read_bytes()).hexdigest()
    assert engine.contract.version.endswith(engine.contract.weights_sha256[:12])


@pytest.mark.parametrize("name", PICTURES)
def test_the_model_answers_as_it_did_when_it_was_exported(engine: Engine, name: str) -> None:
    golden, contract = find_golden(engine, name), engine.contract
    body = (GOLDEN / name).read_bytes()
    assert hashlib.sha256(body).hexdigest() == golden.sha256
    square, place = letterbox(decode(body), contract.input_size, contract.letterbox.fill)
    (prediction,) = engine.predict([square])
    np.testing.assert_allclose(prediction.class_probs, golden.class_probs, atol=1e-3)

    answer = Answer(prediction, place, contract)
    found = answer.detections(score_threshold=0.0, max_detections=len(golden.detections))
    assert [detection.label for detection in found] == [detection.label for detection in golden.detections]
    for one, wanted in zip(found, golden.detections, strict=True):
        np.testing.assert_allclose(one.box, wanted.box, atol=1.0)
        assert one.score == pytest.approx(wanted.score, abs=1e-3)

    fractions = {item.label: item.fraction for item in answer.segments()}
    for label in fractions | golden.mask_fractions:
        assert fractions.get(label, 0.0) == pytest.approx(golden.mask_fractions.get(label, 0.0), abs=0.005)
