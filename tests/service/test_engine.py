from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from service.engine import Engine, OnnxSession, load_engine
from service.errors import ContractError
from tests.service.fakes import BOXES, FOUND, SIZE, FakeSession, make_contract, make_picture, write_tiny_model


def test_predict_cuts_each_picture_to_what_was_found() -> None:
    first, second = make_picture(SIZE, SIZE, seed=1), make_picture(SIZE, SIZE, seed=2)
    session = FakeSession()
    one, two = Engine(session, make_contract()).predict([first, second])
    assert session.passes == 1
    assert one.boxes.shape == (FOUND, 4)
    assert one.scores.tolist() == pytest.approx([0.9, 0.6, 0.2])
    np.testing.assert_array_equal(two.mask, second[::4, ::4, 0] > 127)
    assert not np.array_equal(one.class_probs, two.class_probs)


def test_the_file_answers_like_the_fake(tiny_model: Path) -> None:
    images = [make_picture(SIZE, SIZE, seed=seed) for seed in range(3)]
    engine = load_engine(tiny_model, threads=1)
    assert engine.contract == make_contract()
    assert engine.sha256 == hashlib.sha256(tiny_model.read_bytes()).hexdigest()
    for real, fake in zip(engine.predict(images), Engine(FakeSession(), make_contract()).predict(images), strict=True):
        np.testing.assert_array_equal(real.mask, fake.mask)
        np.testing.assert_array_equal(real.boxes, BOXES[:FOUND])
        np.testing.assert_array_equal(real.labels, fake.labels)
        np.testing.assert_allclose(real.class_probs, fake.class_probs, atol=1e-5)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"gone\.onnx: the model file cannot be read"):
        OnnxSession(tmp_path / "gone.onnx")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ContractError, match="ONNX Runtime cannot load it"):
        OnnxSession(tmp_path / "text.onnx")


def test_a_model_without_contract_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"no 'unihead\.contract' in its metadata"):
        OnnxSession(write_tiny_model(tmp_path / "mute.onnx", None))


def test_a_model_with_other_outputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="outputs are"):
        OnnxSession(write_tiny_model(tmp_path / "few.onnx", make_contract(), outputs=slice(0, 5)))
