from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.contract import GoldenAnswer, GoldenDetection, GoldenTolerance
from service.engine.engine import Engine, load_engine
from service.engine.golden import add_golden, answer_golden, check_golden, compare_answers, measure_tolerance
from service.errors import ContractError, ModelOutputInvalid
from service.pictures.imaging import UInt8Array
from service.pictures.resizing import RESIZER, resize_by_pillow
from service.settings import Settings
from tests.service.fakes import FakeSession, make_contract

EXACT = GoldenTolerance(class_probs=1e-3, scores=1e-3, boxes_px=1, displaced=0, mask_fractions=1e-3)


def make_engine(
    *golden: GoldenAnswer, session: FakeSession | None = None, tolerance: GoldenTolerance = EXACT
) -> Engine:
    return Engine(session or FakeSession(), make_contract(golden=golden, golden_tolerance=tolerance))


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
        assert compare_answers(answer, changed, EXACT) != ""
    assert compare_answers(answer, answer, EXACT) == ""


def make_answer(*boxes: tuple[float, float], prob: float = 0.5, dog: float = 0.25) -> GoldenAnswer:
    """Boxes by their left side and score."""
    detections = tuple(GoldenDetection((left, 0.0, left + 50.0, 50.0), "car", score) for left, score in boxes)
    return GoldenAnswer("a.jpg", "00", (prob, 1 - prob), detections, {"background": 1 - dog, "dog": dog})


def test_tolerances_are_twice_what_another_resizer_changes_and_what_processors_do() -> None:
    one = make_answer((0, 0.5), (100, 0.4), (200, 0.3), prob=0.5, dog=0.25)
    two = make_answer((1, 0.51), (102, 0.4), (230, 0.3), prob=0.505, dog=0.26)
    found = measure_tolerance([one, one], [[one, two]])
    assert found == GoldenTolerance(class_probs=0.012, scores=0.022, boxes_px=5.5, displaced=2, mask_fractions=0.025)
    assert measure_tolerance([one], [[one]]) == GoldenTolerance(2e-3, 2e-3, 1.5, 1, 0.005)


def test_tolerances_hold_for_what_they_were_measured_from_and_end_there() -> None:
    one = make_answer((0, 0.5), (100, 0.4), (200, 0.3), (300, 0.2))
    two = make_answer((1, 0.51), (102, 0.4), (200, 0.3), (330, 0.2), prob=0.505, dog=0.26)
    tolerance = measure_tolerance([one], [[two]])
    assert compare_answers(two, one, tolerance) == ""
    assert compare_answers(one, two, tolerance) == ""
    for changed, sentence in (
        (dataclasses.replace(two, class_probs=(0.52, 0.48)), "class probabilities"),
        (make_answer((1, 0.51), (108, 0.4), (230, 0.3), (330, 0.2)), "no car at (100"),
        (make_answer((1, 0.51)), "number of detections is 1, not 4"),
        (dataclasses.replace(two, mask_fractions={"background": 0.7, "dog": 0.3}), "covers 0.7, not 0.75"),
    ):
        assert sentence in compare_answers(changed, one, tolerance)


def test_however_unsteady_a_model_is_half_of_its_boxes_are_asked_for() -> None:
    one, two = make_answer((0, 0.5), (100, 0.4), (200, 0.3)), make_answer((50, 0.5), (150, 0.4), (250, 0.3))
    assert compare_answers(two, one, GoldenTolerance(displaced=10)).startswith("no car at")


def test_the_embedded_model_says_how_far_pillow_makes_its_answers_differ() -> None:
    engine = load_engine(Settings().model, threads=1)
    contract = add_golden(engine.contract, engine)
    assert contract.golden_tolerance == engine.contract.golden_tolerance
    by_pillow = answer_golden(engine, resize=resize_by_pillow)
    wanted = zip(by_pillow, engine.contract.golden, strict=True)
    assert [compare_answers(one, two, contract.golden_tolerance) for one, two in wanted] == [""] * 4
    # Without a tolerance of its own that picture would be another model's.
    assert compare_answers(by_pillow[0], engine.contract.golden[0], GoldenTolerance(2e-3, 2e-3, 1.5, 1, 0.005)) != ""


def test_a_file_without_tolerances_has_room_for_the_embedded_models() -> None:
    defaults, measured = GoldenTolerance(), load_engine(Settings().model, threads=1).contract.golden_tolerance
    for field in dataclasses.fields(GoldenTolerance):
        assert getattr(measured, field.name) < getattr(defaults, field.name)
        assert getattr(defaults, field.name) <= 3 * getattr(measured, field.name)


def test_where_there_is_one_resizer_an_export_says_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.golden.RESIZERS", {RESIZER: resize_by_pillow})
    engine = make_engine()
    assert add_golden(engine.contract, engine).golden_tolerance == GoldenTolerance()
