"""From one forward pass to the bytes of one answer: only the parts that were asked for, timed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from service.answers import render
from service.answers.masks import MaskFormat, write_mask
from service.answers.schemas import ClassScore, Detection, ImageSize, ModelName, PictureResponse, Segment
from service.engine import postprocess
from service.engine.postprocess import Answer
from service.scheduling.flight import Effort
from service.telemetry.timing import Stopwatch

Part: TypeAlias = Literal["segment", "detect", "classify"]
PARTS: tuple[Part, ...] = ("segment", "detect", "classify")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller asked for.

    Attributes:
        parts: the tasks of the answer, each at most once.
        score_threshold: boxes that score less are left out.
        max_detections: boxes at most.
        top_k: classes at most.
        mask: its form.
    """

    parts: tuple[Part, ...]
    score_threshold: float = 0.3
    max_detections: int = 100
    top_k: int = 5
    mask: MaskFormat = "png"

    @property
    def effort(self) -> Effort:
        """Of making the answer: masks are what takes time."""
        return "some" if "segment" in self.parts else "little"


@dataclass(frozen=True, slots=True)
class Finished:
    """An answer ready to send."""

    content: bytes
    media_type: str


def finish_png(answer: Answer, watch: Stopwatch) -> Finished:
    """Write the mask alone, as a palette PNG of the original's size; laps `postprocess` and `encode`."""
    class_ids = postprocess.mask(answer.prediction, answer.place, mask_stride=answer.contract.mask_stride)
    watch.lap("postprocess")
    png = render.encode_mask(class_ids)
    watch.lap("encode")
    return Finished(png, "image/png")


def finish_json(answer: Answer, watch: Stopwatch, *, wanted: Wanted, shape: type[PictureResponse]) -> Finished:
    """Write the wanted parts as JSON; laps `postprocess` and `encode`.

    Args:
        answer: of the forward pass.
        watch: runs since the picture came; `total` in the JSON is what it shows just before the JSON is written.
        wanted: the parts.
        shape: has a field for each of them.
    """
    contract = answer.contract
    parts: dict[str, Any] = {}
    if "segment" in wanted.parts:
        segments = postprocess.segments(
            answer.prediction, answer.place, contract.segmentation_classes, mask_stride=contract.mask_stride
        )
        parts["segments"] = [Segment.of(segment) for segment in segments]
        parts["mask"] = write_mask(answer, watch, wanted.mask)
    if "detect" in wanted.parts:
        detections = postprocess.detections(
            answer.prediction,
            answer.place,
            contract.detection_classes,
            score_threshold=wanted.score_threshold,
            max_detections=wanted.max_detections,
        )
        parts["detections"] = [Detection.of(detection) for detection in detections]
    if "classify" in wanted.parts:
        classes = postprocess.classes(answer.prediction, contract.classification_classes, top_k=wanted.top_k)
        parts["classes"] = [ClassScore.of(scored) for scored in classes]
    watch.lap("postprocess")
    timings_ms = {**watch.timings_ms, "encode": watch.timings_ms.get("encode", 0.0), "total": watch.elapsed_ms()}
    response = shape(
        model=ModelName(name=contract.name, version=contract.version),
        image=ImageSize(width=answer.place.width, height=answer.place.height),
        timing_ms={stage: round(milliseconds, 3) for stage, milliseconds in timings_ms.items()},
        **parts,
    )
    content = response.model_dump_json(exclude_none=True).encode()
    watch.lap("encode")
    return Finished(content, "application/json")
