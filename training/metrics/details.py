"""What a measurement says class by class and picture by picture, kept beside a run as JSON lines for its report."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import numpy as np
from PIL import Image
from pydantic import Field, TypeAdapter

from service.engine.engine import Engine, Prediction
from service.pictures.imaging import Letterbox, UInt8Array
from training.config import Task
from training.data.datasets import ClassificationSample, DetectionSample
from training.data.feed.dataset import Sample
from training.files import write_whole
from training.metrics.bootstrap import measure_each
from training.metrics.calibration import Calibration, Defined, defined
from training.metrics.classification import Accuracy
from training.metrics.detection import IOU_THRESHOLDS, AveragePrecision
from training.metrics.evaluation import measure_task
from training.metrics.segmentation import ConfusionMatrix
from training.options.base import Frozen

DETAILS_FOLDER = "evaluations"
# Curves are drawn a few hundred pixels wide.
_DIGITS = 6

Curve: TypeAlias = tuple[float, ...]


class DetailsError(ValueError):
    """A file of details is none, or of another version."""


class PictureAnswer(Frozen):
    """What the network said about one picture; of the last three the one that its task needs."""

    picture: str = Field(description="name of its file")
    score: float | None = Field(
        description="0..1: mean IoU of this picture alone, share of its objects found, or probability of its class"
    )
    mask: str = Field("", description="class ids of the square's cells: PNG, base64")
    boxes: tuple[tuple[int, float, float, float, float, float], ...] = Field(
        (), description="class, score, xyxy in pixels; the best, as many as there are objects, but at least one"
    )
    class_probs: Curve = ()


class SegmentationDetails(Frozen):
    """Of masks, by class id."""

    kind: Literal[Task.SEGMENTATION] = Task.SEGMENTATION
    metrics: dict[str, float | None]
    class_iou: Defined
    confusion: tuple[tuple[int, ...], ...] = Field(description="pixels by true class (row) and predicted class")
    pictures: tuple[PictureAnswer, ...] = ()


class DetectionDetails(Frozen):
    """Of boxes, by class id; precision is the best at each of 101 recalls or beyond, 0.00 to 1.00."""

    kind: Literal[Task.DETECTION] = Task.DETECTION
    metrics: dict[str, float | None]
    objects: tuple[int, ...]
    class_ap_50: Defined
    class_ap_50_95: Defined
    class_precision: tuple[Curve, ...] = Field(description="at an IoU of 0.5; empty for a class without objects")
    precision_50: Curve = Field(description="mean over the classes with objects, at an IoU of 0.5")
    precision_75: Curve = Field(description="at an IoU of 0.75")
    precision_50_95: Curve = Field(description="averaged over the ten IoUs")
    calibration: Calibration | None
    pictures: tuple[PictureAnswer, ...] = ()


class ClassificationDetails(Frozen):
    """Of whole pictures, by class id."""

    kind: Literal[Task.CLASSIFICATION] = Task.CLASSIFICATION
    metrics: dict[str, float | None]
    class_accuracy: Defined
    confusion: tuple[tuple[int, ...], ...] = Field(description="pictures by true class (row) and first class")
    calibration: Calibration
    pictures: tuple[PictureAnswer, ...] = ()


Details: TypeAlias = SegmentationDetails | DetectionDetails | ClassificationDetails
_DETAILS: TypeAdapter[Details] = TypeAdapter(Annotated[Details, Field(discriminator="kind")])


def measure_details(
    engine: Engine, task: Task, samples: Sequence[Sample], *, batch_size: int
) -> tuple[dict[str, float], Details]:
    """Measure as `evaluation.measure_task` does, and give the metrics with all that lies behind them."""
    answers: list[PictureAnswer] = []
    measured = measure_task(
        engine,
        task,
        samples,
        batch_size=batch_size,
        on_answer=lambda *answer: answers.append(_describe_answer(*answer)),
    )
    counted = measured.counted
    if not isinstance(counted, Accuracy):
        alone = measure_each(counted) if isinstance(counted, ConfusionMatrix) else counted.found_in_each()
        scores = defined(alone.tolist())
        answers = [one.model_copy(update={"score": score}) for one, score in zip(answers, scores, strict=True)]
    metrics = dict(zip(measured.metrics, defined(measured.metrics.values()), strict=True))
    return measured.metrics, _describe(counted, metrics, tuple(answers))


def _describe(
    counted: ConfusionMatrix | AveragePrecision | Accuracy,
    metrics: dict[str, float | None],
    pictures: tuple[PictureAnswer, ...],
) -> Details:
    if isinstance(counted, ConfusionMatrix):
        return SegmentationDetails(
            metrics=metrics,
            class_iou=defined(counted.compute().per_class_iou),
            confusion=tuple(map(tuple, counted.counts.tolist())),
            pictures=pictures,
        )
    if isinstance(counted, Accuracy):
        return ClassificationDetails(
            metrics=metrics,
            class_accuracy=defined(counted.compute().per_class_accuracy),
            confusion=tuple(map(tuple, counted.confusion().tolist())),
            calibration=counted.calibrate(),
            pictures=pictures,
        )
    found, curves = counted.compute(), counted.curves()
    means = np.nanmean(curves, axis=0)  # [T, 101]
    return DetectionDetails(
        metrics=metrics,
        objects=tuple(counted.objects.tolist()),
        class_ap_50=defined(found.per_class_ap_50),
        class_ap_50_95=defined(found.per_class_ap_50_95),
        class_precision=tuple(() if np.isnan(curve[0, 0]) else _curve(curve[0]) for curve in curves),
        precision_50=_curve(means[0]),
        precision_75=_curve(means[int(np.argmin(np.abs(IOU_THRESHOLDS - 0.75)))]),
        precision_50_95=_curve(means.mean(axis=0)),
        calibration=counted.calibrate(),
        pictures=pictures,
    )


def _describe_answer(sample: Sample, place: Letterbox, prediction: Prediction) -> PictureAnswer:
    name = sample.image.name
    if isinstance(sample, ClassificationSample):
        probs = prediction.class_probs
        return PictureAnswer(picture=name, score=float(probs[sample.label]), class_probs=_curve(probs))
    if isinstance(sample, DetectionSample):
        best = slice(max(1, len(sample.boxes)))
        boxes = place.boxes_to_original(prediction.boxes[best]).round(1).tolist()
        scored = zip(prediction.labels[best].tolist(), prediction.scores[best].tolist(), boxes, strict=True)
        return PictureAnswer(
            picture=name, score=None, boxes=tuple((label, round(score, _DIGITS), *box) for label, score, box in scored)
        )
    return PictureAnswer(picture=name, score=None, mask=_encode_mask(prediction.mask))


def _encode_mask(cells: UInt8Array) -> str:
    file = io.BytesIO()
    Image.fromarray(cells).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def decode_mask(answer: PictureAnswer) -> UInt8Array:
    """Class ids [S / mask_stride, S / mask_stride] of the square's cells."""
    with Image.open(io.BytesIO(base64.b64decode(answer.mask)), formats=["PNG"]) as picture:
        return np.asarray(picture)


def _curve(values: np.ndarray[tuple[int], np.dtype[np.floating]]) -> Curve:
    return tuple(round(value, _DIGITS) for value in values.tolist())


def write_details(out: Path, stage: str, details: Sequence[Details]) -> None:
    """Write what was measured after a stage; a resumed run, which measures again, writes the same again."""
    path = out / DETAILS_FOLDER / f"{stage}.jsonl"
    path.parent.mkdir(exist_ok=True)
    lines = [
        line
        for each in details
        for line in (
            each.model_dump_json(exclude={"pictures"}),
            *(answer.model_dump_json(exclude_defaults=True) for answer in each.pictures),
        )
    ]
    write_whole(path, "\n".join(lines) + "\n")


def read_details(out: Path, stage: str) -> Mapping[Task, Details]:
    """Read what was measured after a stage, by task; empty where the run left no such file.

    Raises:
        DetailsError: the file is not one that this version wrote.
    """
    path = out / DETAILS_FOLDER / f"{stage}.jsonl"
    if not path.exists():
        return {}
    found: dict[Task, tuple[Details, list[PictureAnswer]]] = {}
    try:
        answers: list[PictureAnswer] = []
        for line in path.read_text(encoding="utf-8").splitlines():
            if "kind" in json.loads(line):
                details = _DETAILS.validate_json(line)
                answers = []
                found[details.kind] = details, answers
            else:
                answers.append(PictureAnswer.model_validate_json(line))
    except (OSError, ValueError) as error:
        raise DetailsError(f"{path} is not a file of details that this version wrote: {error}") from error
    return {task: one.model_copy(update={"pictures": tuple(answers)}) for task, (one, answers) in found.items()}
