from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.engine import Engine, load_engine
from service.errors import ContractError
from service.pictures.imaging import UInt8Array, decode, letterbox
from service.settings import Settings
from tests.service.fakes import BOXES, FOUND, GOLDEN, SIZE, FakeSession, make_contract, make_picture


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
        load_engine(tmp_path / "gone.onnx")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ContractError, match="ONNX Runtime cannot load it"):
        load_engine(tmp_path / "text.onnx")


def test_a_model_without_contract_is_refused(tmp_path: Path, write_tiny_model: Callable[..., Path]) -> None:
    with pytest.raises(ContractError, match=r"no 'unihead\.contract' in its metadata"):
        load_engine(write_tiny_model(tmp_path / "mute.onnx", None))


def test_a_model_with_other_outputs_is_refused(tmp_path: Path, write_tiny_model: Callable[..., Path]) -> None:
    with pytest.raises(ContractError, match="outputs are"):
        load_engine(write_tiny_model(tmp_path / "few.onnx", make_contract(), outputs=slice(0, 5)))


def test_a_missing_execution_provider_is_named_with_those_that_are_there(tiny_model: Path) -> None:
    with pytest.raises(ContractError, match=r"no MadeUpExecutionProvider here; it has .*CPUExecutionProvider"):
        load_engine(tiny_model, providers=("MadeUpExecutionProvider", "CPUExecutionProvider"))


def test_a_pass_that_has_the_machine_for_itself_runs_on_the_wide_session() -> None:
    narrow, wide = FakeSession(), FakeSession()
    engine = Engine(narrow, make_contract(), wide_session=wide)
    engine.predict([make_picture(SIZE, SIZE)], alone=True)
    engine.predict([make_picture(SIZE, SIZE)])
    assert (narrow.passes, wide.passes) == (1, 1)


class SlowSession(FakeSession):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
        time.sleep(self._seconds)
        return super().run(images)


@pytest.mark.parametrize(("narrow_s", "wide_s", "threads"), [(0.02, 0.001, 4), (0.001, 0.02, 1)])
def test_warming_up_keeps_the_wide_session_if_it_is_faster(narrow_s: float, wide_s: float, threads: int) -> None:
    narrow, wide = SlowSession(narrow_s), SlowSession(wide_s)
    engine = Engine(narrow, make_contract(), wide_session=wide, wide_threads=4)
    engine.warm_up()
    assert engine.alone_threads == threads
    before = narrow.passes, wide.passes
    engine.predict([make_picture(SIZE, SIZE)], alone=True)
    assert (narrow.passes - before[0], wide.passes - before[1]) == ((0, 1) if threads == 4 else (1, 0))


def test_warming_up_one_session_runs_it_twice() -> None:
    narrow = FakeSession()
    Engine(narrow, make_contract()).warm_up()
    assert narrow.passes == 2


def test_a_model_that_cannot_answer_is_refused_by_the_warm_up() -> None:
    class Dead(FakeSession):
        def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
            raise RuntimeError(f"no kernel for {images.shape}")

    with pytest.raises(ContractError, match="cannot answer a blank picture: no kernel"):
        Engine(Dead(), make_contract()).warm_up()


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_the_embedded_model_gives_the_same_bits_on_any_number_of_threads(threads: int) -> None:
    one, many = (load_engine(Settings().model, threads=count) for count in (1, threads))
    size = one.contract.input_size
    for path in sorted(GOLDEN.glob("*.jpg")):
        square, _ = letterbox(decode(path.read_bytes()), size, one.contract.letterbox.fill)
        (a,), (b,) = one.predict([square]), many.predict([square])
        for field in ("boxes", "scores", "labels", "mask", "class_probs"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
