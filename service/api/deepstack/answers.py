"""Answers in the words of DeepStack and CodeProject.AI: whole pixels, whole milliseconds, COCO's names."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from service.answers.finish import Content
from service.engine import postprocess
from service.engine.postprocess import Answer
from service.telemetry.timing import Stopwatch

# VOC's names as COCO has them. Frigate looks labels up in COCO's, and drops what follows one that is not there.
_COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
_INFERENCE = Field(description="milliseconds of the forward pass; 0 where another request had it made")
_PROCESS = Field(description="milliseconds from the body's last byte to this JSON")


class Prediction(BaseModel):
    """One object found; in pixels of the upright original."""

    label: str = Field(description="in COCO's spelling")
    confidence: float = Field(ge=0, le=1)
    x_min: int
    y_min: int
    x_max: int
    y_max: int

    @classmethod
    def of(cls, found: postprocess.Detection) -> Prediction:
        """Round to whole pixels and a millionth of confidence."""
        x_min, y_min, x_max, y_max = map(round, found.box)
        label = _COCO_NAMES.get(found.label, found.label)
        return cls(label=label, confidence=round(found.score, 6), x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)


class DetectionAnswer(BaseModel):
    """Which objects are where."""

    success: Literal[True] = True
    predictions: list[Prediction] = Field(description="best first, as many as the setting says at most")
    count: int = Field(description="of predictions")
    inferenceMs: int = _INFERENCE  # noqa: N815 - the clients' spelling
    processMs: int = _PROCESS  # noqa: N815


class SceneAnswer(BaseModel):
    """What the whole picture shows."""

    success: Literal[True] = True
    label: str
    confidence: float = Field(ge=0, le=1)
    inferenceMs: int = _INFERENCE  # noqa: N815
    processMs: int = _PROCESS  # noqa: N815


class ModelsAnswer(BaseModel):
    """Which models `custom/{name}` has."""

    success: Literal[True] = True
    models: list[str]


class StatusAnswer(BaseModel):
    """The model is loaded and warm."""

    success: Literal[True] = True
    message: str
    updateAvailable: Literal[False] = Field(False, description="nobody looks for one")  # noqa: N815


class Refusal(BaseModel):
    """Why a request was not answered."""

    success: Literal[False] = False
    error: str = Field(description="one sentence: what came, what was wanted")
    code: int = Field(description="the status")


def finish_detection(answer: Answer, watch: Stopwatch, *, min_confidence: float, most: int) -> Content:
    """Write the boxes of one picture; laps `postprocess` and `encode`.

    Args:
        answer: of the forward pass.
        watch: of the request.
        min_confidence: boxes that score less are left out; 0..1.
        most: boxes.

    Raises:
        TaskNotServed: the model that answered gives no boxes.
    """
    answer.contract.require_task("detect")
    found = answer.detections(score_threshold=min_confidence, max_detections=most)
    predictions = [Prediction.of(one) for one in found]
    watch.lap("postprocess")
    times = _find_times(watch)
    return _write(DetectionAnswer(predictions=predictions, count=len(predictions), **times), watch)


def finish_scene(answer: Answer, watch: Stopwatch) -> Content:
    """Write the most probable class of one picture; laps `postprocess` and `encode`.

    Raises:
        TaskNotServed: the model that answered does not classify.
    """
    answer.contract.require_task("classify")
    (best,) = answer.classes(top_k=1)
    watch.lap("postprocess")
    return _write(SceneAnswer(label=best.label, confidence=round(best.probability, 6), **_find_times(watch)), watch)


def _find_times(watch: Stopwatch) -> dict[str, int]:
    return {"inferenceMs": round(watch.timings_ms.get("forward", 0)), "processMs": round(watch.elapsed_ms())}


def _write(answer: BaseModel, watch: Stopwatch) -> Content:
    content = answer.model_dump_json().encode()
    watch.lap("encode")
    return Content(content, "application/json")
