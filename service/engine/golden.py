"""The answers that a model file carries about the shipped pictures: asked for at export, compared before a swap."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from service.engine.contract import GoldenAnswer, GoldenDetection, GoldenTolerance, ModelContract
from service.engine.engine import Engine
from service.engine.postprocess import Answer, Detection
from service.errors import ContractError
from service.pictures.imaging import decode, letterbox
from service.pictures.resizing import RESIZER, RESIZERS, Resize, resize

GOLDEN_PICTURES = Path(__file__).parents[1] / "models" / "golden"

_DETECTIONS = 10
# What other processors and versions of ONNX Runtime make of the same input: they add in another order.
_CALCULATING = GoldenTolerance(class_probs=2e-3, scores=2e-3, boxes_px=1.5, displaced=1, mask_fractions=0.005)
# Another resizer changes some pixels by a level; what it changes may be half of what a third one would.
_MARGIN = 2
# Two boxes of one class whose sides are no further apart than this share of the shorter one are of one object.
_NEAR = 0.1


class NoGoldenAnswers(ContractError):
    """A model file does not say what the model answers about the shipped pictures."""


def answer_golden(
    engine: Engine, folder: Path = GOLDEN_PICTURES, *, resize: Resize = resize
) -> tuple[GoldenAnswer, ...]:
    """Ask the model about each JPEG picture of a folder, sorted by name."""
    return tuple(_answer(engine, path, resize) for path in sorted(folder.glob("*.jpg")))


def add_golden(contract: ModelContract, engine: Engine, folder: Path = GOLDEN_PICTURES) -> ModelContract:
    """A contract with the model's answers about the pictures of a folder, and how far other machines may be from them.

    Args:
        contract: of the file that the engine has loaded, without them.
        engine: that answers.
        folder: of JPEG pictures.
    """
    answers = answer_golden(engine, folder)
    others = [answer_golden(engine, folder, resize=way) for name, way in RESIZERS.items() if name != RESIZER]
    tolerance = measure_tolerance(answers, others) if others else GoldenTolerance()
    return replace(contract, golden=answers, golden_tolerance=tolerance)


def measure_tolerance(answers: Sequence[GoldenAnswer], others: Sequence[Sequence[GoldenAnswer]]) -> GoldenTolerance:
    """How far answers may be from a model's own: twice as far as other resizers make them, and what processors do.

    Args:
        answers: about each picture.
        others: of the same model, about the same pictures resized in other ways.
    """
    pairs = [pair for one in others for pair in zip(answers, one, strict=True)]
    boxes = [
        (one, two) for left, right in pairs for one in left.detections for two in right.detections if _is_near(one, two)
    ]

    known = _CALCULATING
    tolerance = GoldenTolerance(
        class_probs=_widen(known.class_probs, (d for x, y in pairs for d in _differ(x.class_probs, y.class_probs))),
        scores=_widen(known.scores, (abs(one.score - two.score) for one, two in boxes)),
        boxes_px=_widen(known.boxes_px, (d for one, two in boxes for d in _differ(one.box, two.box))),
        mask_fractions=_widen(known.mask_fractions, (d for x, y in pairs for d in _differ_in_masks(x, y).values())),
    )
    displaced = max((len(_find_displaced(two, one, tolerance)) for one, two in pairs), default=0)
    return replace(tolerance, displaced=known.displaced + displaced)


def _widen(known: float, differences: Iterable[float]) -> float:
    return round(known + _MARGIN * max(differences, default=0.0), 6)


def _answer(engine: Engine, path: Path, resize: Resize) -> GoldenAnswer:
    contract = engine.contract
    body = path.read_bytes()
    square, place = letterbox(decode(body), contract.input_size, contract.letterbox.fill, resize=resize)
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
        difference = compare_answers(answer, wanted, engine.contract.golden_tolerance)
        if difference:
            raise ContractError(f"about {answer.file} the model answers otherwise than its file says: {difference}")


def compare_answers(answer: GoldenAnswer, wanted: GoldenAnswer, tolerance: GoldenTolerance) -> str:
    """Say how an answer differs from the wanted one; empty if it does not. NaN differs from everything."""
    one, two = answer.class_probs, wanted.class_probs
    if len(one) != len(two) or not all(difference <= tolerance.class_probs for difference in _differ(one, two)):
        return f"class probabilities are {one}, not {two}"
    found, sought = len(answer.detections), len(wanted.detections)
    # However many boxes a model would exchange, most of them are asked for.
    allowed = min(tolerance.displaced, max(found, sought) // 2)
    if abs(found - sought) > allowed:
        return f"number of detections is {found}, not {sought}"
    displaced = _find_displaced(answer, wanted, tolerance)
    if len(displaced) > allowed:
        first = displaced[0]
        return f"no {first.label} at {first.box} with a score of {first.score}"
    for label, difference in _differ_in_masks(answer, wanted).items():
        if not difference <= tolerance.mask_fractions:
            return (
                f"{label} covers {answer.mask_fractions.get(label, 0.0)}, not {wanted.mask_fractions.get(label, 0.0)}"
            )
    return ""


def _differ(one: Sequence[float], two: Sequence[float]) -> list[float]:
    return [abs(a - b) for a, b in zip(one, two, strict=True)]


def _differ_in_masks(one: GoldenAnswer, two: GoldenAnswer) -> dict[str, float]:
    """Of each class that covers something, by how much of the picture."""
    labels = one.mask_fractions | two.mask_fractions
    return {label: abs(one.mask_fractions.get(label, 0.0) - two.mask_fractions.get(label, 0.0)) for label in labels}


def _find_displaced(answer: GoldenAnswer, wanted: GoldenAnswer, tolerance: GoldenTolerance) -> list[GoldenDetection]:
    """The wanted boxes that an answer lacks: where two score nearly the same, either may be left out for the other."""
    found = answer.detections
    return [one for one in wanted.detections if not any(_is_same(one, two, tolerance) for two in found)]


def _is_same(one: GoldenDetection, two: GoldenDetection, tolerance: GoldenTolerance) -> bool:
    return (
        one.label == two.label
        and abs(one.score - two.score) <= tolerance.scores
        and max(_differ(one.box, two.box)) <= tolerance.boxes_px
    )


def _is_near(one: GoldenDetection, two: GoldenDetection) -> bool:
    left, top, right, bottom = one.box
    allowed = _NEAR * min(right - left, bottom - top)
    return one.label == two.label and max(_differ(one.box, two.box)) <= allowed
