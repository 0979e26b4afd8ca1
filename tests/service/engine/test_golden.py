from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.contract import GoldenAnswer
from service.engine.engine import Engine, load_engine
from service.engine.golden import answer_golden, check_golden, compare_answers
from service.errors import ContractError, ModelOutputInvalid
from service.pictures.imaging import UInt8Array
from service.settings import Settings
from tests.service.fakes import FakeSession, make_contract


def make_engine(*golden: GoldenAnswer, session: FakeSession | None = None) -> Engine:
    return Engine(session or FakeSession(), make_contract(golden=golden))


def make_answers() -> tuple[GoldenAnswer, ...]:
    return answer_golden(make_engine())


def test_a_model_answers_as_its_file_says() -> None:
    answers = make_answers()
    assert [answer.file for answer in answers] == ["astronaut.jpg", "chelsea.jpg", "coffee.jpg", "rocket.jpg"]
    check_golden(make_engine(*answers))
    check_golden(make_engine(answers[2]))


def test_the_embedded_model_does() -> None:
    check_golden(load_engine(Settings().model, threads=1))


def test_a_model_without_answers_is_refused() -> None:
    with pytest.raises(ContractError, match="carries no answers"):
        check_golden(make_engine())
    with pytest.raises(ContractError, match="carries no answers"):
        check_golden(make_engine(dataclasses.replace(make_answers()[0], file="unknown.jpg")))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sha256": "00" * 32}, "is another picture"),
        ({"class_probs": (0.2, 0.5, 0.3)}, "class probabilities are"),
        ({"class_probs": (1.0,)}, "class probabilities are"),
        ({"detections": ()}, "number of detections"),
        ({"mask_fractions": {"dog": 1.0}}, "covers"),
    ],
)
def test_other_answers_are_refused(changes: dict[str, object], sentence: str) -> None:
    first, *rest = make_answers()
    with pytest.raises(ContractError, match=sentence):
        check_golden(make_engine(dataclasses.replace(first, **changes), *rest))  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize("changes", [{"label": "kite"}, {"score": 0.5}, {"box": (0.0, 0.0, 9.0, 9.0)}])
def test_another_box_is_refused(changes: dict[str, object]) -> None:
    first, *rest = make_answers()
    best, *others = first.detections
    moved = dataclasses.replace(best, **changes)  # type: ignore[arg-type]  # by name
    with pytest.raises(ContractError, match=f"no {moved.label} at"):
        check_golden(make_engine(dataclasses.replace(first, detections=(moved, *others)), *rest))


def test_an_answer_that_cannot_be_true_is_an_error_of_its_own() -> None:
    class Lost(FakeSession):
        def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
            outputs = dict(super().run(images))
            return {**outputs, "class_probs": np.full_like(outputs["class_probs"], np.nan)}

    with pytest.raises(ModelOutputInvalid, match="class_probs holds values that are no finite numbers"):
        check_golden(make_engine(*make_answers(), session=Lost()))


def test_what_is_no_number_differs_from_everything() -> None:
    nan, answer = float("nan"), make_answers()[0]
    best, *others = answer.detections
    for changed in (
        dataclasses.replace(answer, class_probs=(nan, *answer.class_probs[1:])),
        dataclasses.replace(answer, detections=(dataclasses.replace(best, score=nan), *others)),
        dataclasses.replace(answer, mask_fractions={**answer.mask_fractions, "dog": nan}),
    ):
        assert compare_answers(answer, changed) != ""
    assert compare_answers(answer, answer) == ""
