"""The answers that a model file carries about the shipped pictures: asked for at export, compared before a swap."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from service.engine.contract import GoldenAnswer, GoldenDetection
from service.engine.engine import Engine
from service.engine.postprocess import Answer, Detection
from service.errors import ContractError
from service.pictures.imaging import decode, letterbox

GOLDEN_PICTURES = Path(__file__).parents[1] / "models" / "golden"

_DETECTIONS = 10
# Other processors and versions of ONNX Runtime add in another order; anything larger is another model.
_PROBABILITY_TOLERANCE = 2e-3
_BOX_TOLERANCE_PX = 1.5
_FRACTION_TOLERANCE = 0.005


class NoGoldenAnswers(ContractError):
    """A model file does not say what the model answers about the shipped pictures."""


def answer_golden(engine: Engine, folder: Path = GOLDEN_PICTURES) -> tuple[GoldenAnswer, ...]:
    """Ask the model about each JPEG picture of a folder, sorted by name."""
    return tuple(_answer(engine, path) for path in sorted(folder.glob("*.jpg")))


def _answer(engine: Engine, path: Path) -> GoldenAnswer:
    contract = engine.contract
    body = path.read_bytes()
    square, place = letterbox(decode(body), contract.input_size, contract.letterbox.fill)
    (prediction,) = engine.predict([square])
    said = Answer(prediction, place, contract)
    answer = GoldenAnswer(path.name, hashlib.sha256(body).hexdigest(), class_probs=(), detections=(), mask_fractions={})
    if "segment" in contract.tasks:
        answer = replace(answer, mask_fractions={one.label: round(one.fraction, 6) for one in said.segments()})
    if "detect" in contract.tasks:
        found = said.detections(score_threshold=0.0, max_detections=_DETECTIONS)
        answer = replace(answer, detections=tuple(_round(one) for one in found))
    if "classify" in contract.tasks:
        answer = replace(answer, class_probs=tuple(round(value, 6) for value in prediction.class_probs.tolist()))
    return answer


def _round(found: Detection) -> GoldenDetection:
    left, top, right, bottom = (round(side, 2) for side in found.box)
    return GoldenDetection((left, top, right, bottom), found.label, round(found.score, 6))


def check_golden(engine: Engine, folder: Path = GOLDEN_PICTURES) -> None:
    """Compare a model's answers about the shipped pictures with those that its file carries.

    Raises:
        NoGoldenAnswers: it carries none about a shipped picture.
        ContractError: it answers otherwise; says about which and how.
        ModelOutputInvalid: what it says about a picture cannot be true.
    """
    carried = {golden.file: golden for golden in engine.contract.golden}
    asked = [answer for answer in answer_golden(engine, folder) if answer.file in carried]
    if not asked:
        raise NoGoldenAnswers("the model carries no answers about the golden pictures; export it with `unihead-export`")
    for answer in asked:
        wanted = carried[answer.file]
        if answer.sha256 != wanted.sha256:
            raise ContractError(f"{answer.file} is another picture than the one that the model has answers about")
        difference = compare_answers(answer, wanted)
        if difference:
            raise ContractError(f"about {answer.file} the model answers otherwise than its file says: {difference}")


def compare_answers(answer: GoldenAnswer, wanted: GoldenAnswer) -> str:
    """Say how an answer differs from the wanted one; empty if it does not. NaN differs from everything."""
    for name, one, two in (
        ("class probabilities", answer.class_probs, wanted.class_probs),
        ("number of detections", (len(answer.detections),), (len(wanted.detections),)),
    ):
        if len(one) != len(two) or not all(abs(a - b) <= _PROBABILITY_TOLERANCE for a, b in zip(one, two, strict=True)):
            return f"{name} are {one}, not {two}"
    # Boxes of nearly the same score may change places, and the last one may be another of that score.
    for detection in wanted.detections[:-1]:
        if not any(_is_same(detection, other) for other in answer.detections):
            return f"no {detection.label} at {detection.box} with a score of {detection.score}"
    for label in answer.mask_fractions | wanted.mask_fractions:
        one_share, two_share = answer.mask_fractions.get(label, 0.0), wanted.mask_fractions.get(label, 0.0)
        if not abs(one_share - two_share) <= _FRACTION_TOLERANCE:
            return f"{label} covers {one_share}, not {two_share}"
    return ""


def _is_same(one: GoldenDetection, two: GoldenDetection) -> bool:
    return (
        one.label == two.label
        and abs(one.score - two.score) <= _PROBABILITY_TOLERANCE
        and all(abs(a - b) <= _BOX_TOLERANCE_PX for a, b in zip(one.box, two.box, strict=True))
    )
