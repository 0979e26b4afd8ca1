"""From what the teachers say to labels: what counts, from which score on, and what image labels change about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from service.pictures.imaging import FloatArray, UInt8Array
from training.data.labelling.answers import BoxAnswer, ClassAnswer, MaskAnswer
from training.data.labelling.decoding import MOST_BOXES
from training.data.labelling.fusion import Witness, fuse
from training.data.labelling.image_labels import Known
from training.data.taxonomy import VOID
from training.options.base import Frozen

Inner = Annotated[float, Field(gt=0, lt=1)]


class Rules(Frozen):
    """Which answers become labels; each value is an option of `unihead-data label`."""

    min_score: Inner = Field(0.3, description="boxes are objects from here on; goes into data.toml")
    unsure_score: Inner = Field(
        0.15, description="from here to `min_score` a box is neither object nor background; goes into data.toml"
    )
    score_floor: Inner = Field(0.05, description="boxes are written from here on")
    min_probability: Inner = Field(0.55, description="pixels below it are void, pictures below it have no class")
    admit: float = Field(
        0.6, gt=0, le=1, description="share of these thresholds that is enough where an image label affirms the class"
    )
    iou_threshold: Inner = Field(0.6, description="boxes of several teachers that overlap by more are one")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.score_floor <= self.unsure_score <= self.min_score:
            raise ValueError(
                f"score_floor {self.score_floor:g}, unsure_score {self.unsure_score:g} and min_score "
                f"{self.min_score:g}; wanted them in rising order"
            )
        return self

    def raise_scores(self, scores: FloatArray) -> FloatArray:
        """Scores of affirmed classes as those of others that are worth as much: admit x min_score becomes min_score."""
        power = math.log(self.min_score) / math.log(self.admit * self.min_score)
        raised: FloatArray = scores**power
        return raised


def judge_boxes(witnesses: Sequence[Witness], known: Known, rules: Rules) -> tuple[BoxAnswer, FloatArray]:
    """Fuse the boxes of one picture, take out what its labels deny, and raise what they affirm.

    Returns:
        The boxes, the best first, and the scores that the teachers gave them.
    """
    fused = witnesses[0].answer if len(witnesses) == 1 else fuse(witnesses, rules.iou_threshold)
    affirmed = np.isin(fused.labels, list(known.present))
    scores = np.where(affirmed, rules.raise_scores(fused.scores), fused.scores)
    kept = np.flatnonzero((scores >= rules.score_floor) & ~np.isin(fused.labels, list(known.absent)))
    kept = kept[np.argsort(-scores[kept], kind="stable")][:MOST_BOXES]
    return BoxAnswer(fused.boxes[kept], scores[kept], fused.labels[kept]), fused.scores[kept]


def judge_masks(answers: Sequence[tuple[MaskAnswer, float]], classes: int, known: Known, rules: Rules) -> UInt8Array:
    """Let the teachers vote on each pixel, and leave out what is unsure or denied.

    Each gives its best class the probability that it sees there, times its weight, so that where they differ nobody
    is sure.

    Args:
        answers: with weights; their ids are 0 for background, else 1 + a position in the common names.
        classes: how many names there are.
        known: of the picture.
        rules: thresholds.

    Returns:
        [H, W] 0 for background, 1 + the position of a class, or `VOID`.
    """
    if len(answers) == 1:
        ids, sure = answers[0][0].ids, answers[0][0].probs / np.float32(255)
    else:
        height, width = answers[0][0].ids.shape
        votes = np.zeros((classes + 1, height, width), dtype=np.float32)
        rows, columns = np.ogrid[:height, :width]
        for answer, weight in answers:
            votes[answer.ids, rows, columns] += np.float32(weight / 255) * answer.probs
        ids = votes.argmax(axis=0).astype(np.uint8)
        sure = votes.max(axis=0) / np.float32(sum(weight for _, weight in answers))
    enough = np.full(classes + 1, rules.min_probability, dtype=np.float32)
    enough[[1 + label for label in known.present]] *= rules.admit
    enough[[1 + label for label in known.absent]] = np.inf
    return np.where(sure >= enough[ids], ids, VOID).astype(np.uint8)


def judge_classes(
    answers: Sequence[tuple[ClassAnswer, float]], known: Known, rules: Rules
) -> tuple[int | None, NDArray[np.float64]]:
    """The class of a picture, None where the teachers are unsure or its labels deny it; and their mean probabilities.

    Args:
        answers: with weights; by position in the common names.
        known: of the picture.
        rules: thresholds.
    """
    probs = np.average([answer.probs for answer, _ in answers], axis=0, weights=[weight for _, weight in answers])
    best = int(probs.argmax())
    enough = rules.min_probability * (rules.admit if best in known.present else 1)
    return (best if probs[best] >= enough and best not in known.absent else None), probs
