"""From one forward pass to the bytes of one answer: only the parts that were asked for, or a drawing; timed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from service.answers import render
from service.answers.masks import MaskFormat, write_mask
from service.answers.render import PictureFormat
from service.answers.schemas import ClassScore, Detection, ImageSize, ModelName, PictureResponse, Segment
from service.engine.contract import ModelContract, ModelTask
from service.engine.postprocess import Answer
from service.pictures.imaging import decode_for, fit
from service.pictures.limits import PictureLimits
from service.pictures.resizing import resize
from service.telemetry.timing import Stopwatch

# Drawing three megapixels and writing them as PNG takes a quarter of a second, which is as long as a worker should.
MAX_SIDE = 2048


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller asked for.

    Attributes:
        tasks: of the answer; None: all that the model serves.
        score_threshold: boxes that score less are left out; None: the threshold of the model that answers.
        max_detections: boxes at most.
        top_k: classes at most.
        mask: its form.
    """

    tasks: tuple[ModelTask, ...] | None = None
    score_threshold: float | None = None
    max_detections: int = 100
    top_k: int = 5
    mask: MaskFormat = "png"

    def find_tasks(self, contract: ModelContract) -> tuple[ModelTask, ...]:
        """The tasks of an answer of this model.

        Raises:
            TaskNotServed: one is asked for by name that the model does not serve.
        """
        if self.tasks is None:
            return contract.tasks
        for task in self.tasks:
            contract.require_task(task)
        return self.tasks


# What a request that says nothing is answered.
DEFAULTS = Wanted()


@dataclass(frozen=True, slots=True)
class Look:
    """How to draw.

    Attributes:
        score_threshold: boxes that score less are left out; None: the threshold of the model that answers.
        max_detections: boxes at most.
        opacity: of the mask, 0..1.
        format: of the file.
        max_side: a picture with a longer side is drawn smaller; in pixels.
    """

    score_threshold: float | None = DEFAULTS.score_threshold
    max_detections: int = DEFAULTS.max_detections
    opacity: float = 0.5
    format: PictureFormat = "jpeg"
    max_side: int = MAX_SIDE


DEFAULT_LOOK = Look()


@dataclass(frozen=True, slots=True)
class Content:
    """An answer ready to send."""

    data: bytes
    media_type: str


def finish_png(answer: Answer, watch: Stopwatch) -> Content:
    """Write the mask alone, as a palette PNG of the original's size; laps `postprocess` and `encode`.

    Raises:
        TaskNotServed: as in `finish_json`.
    """
    class_ids = answer.mask()
    watch.lap("postprocess")
    png = render.encode_mask(class_ids)
    watch.lap("encode")
    return Content(png, "image/png")


def finish_json(answer: Answer, watch: Stopwatch, *, wanted: Wanted, shape: type[PictureResponse]) -> Content:
    """Write the wanted parts as JSON; laps `postprocess` and `encode`.

    Args:
        answer: of the forward pass.
        watch: runs since the picture came; `total` in the JSON is what it shows just before the JSON is written.
        wanted: the parts.
        shape: has a field for each of them.

    Raises:
        TaskNotServed: the model that answered has not all of them; since the door let the request in, it was swapped.
    """
    contract = answer.contract
    tasks = wanted.find_tasks(contract)
    parts: dict[str, Any] = {}
    if "segment" in tasks:
        parts["segments"] = [Segment.of(segment) for segment in answer.segments()]
        parts["mask"] = write_mask(answer, watch, wanted.mask)
    if "detect" in tasks:
        detections = answer.detections(score_threshold=wanted.score_threshold, max_detections=wanted.max_detections)
        parts["detections"] = [Detection.of(detection) for detection in detections]
    if "classify" in tasks:
        parts["classes"] = [ClassScore.of(scored) for scored in answer.classes(top_k=wanted.top_k)]
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
    return Content(content, "application/json")


def require_drawable(contract: ModelContract) -> None:
    """Return if a model says something that can be drawn.

    Raises:
        TaskNotServed: it serves neither masks nor boxes.
    """
    contract.require_task("segment", "detect")


def finish_overlay(answer: Answer, watch: Stopwatch, *, picture: bytes, look: Look, limits: PictureLimits) -> Content:
    """Decode a picture once more, at the size that is to be drawn, and draw over it; laps `postprocess` and `encode`.

    Masks and boxes are drawn, or which of them the model serves.

    Args:
        answer: of the forward pass, which saw no more of the picture than the network's input has room for.
        watch: of the request.
        picture: the file.
        look: how to draw.
        limits: beyond which a file is refused.

    Raises:
        DamagedImage: the part of the picture that the pass did without cannot be decoded.
        TaskNotServed: as in `finish_json`.
    """
    contract = answer.contract
    require_drawable(contract)
    pixels, (width, height) = decode_for(look.max_side, picture, limits)
    if max(width, height) > look.max_side:
        drawn = fit(width, height, look.max_side)
        width, height = drawn.resized_width, drawn.resized_height
        pixels = resize(pixels, width, height)
    place = dataclasses.replace(answer.place, width=width, height=height)
    answer, tasks = dataclasses.replace(answer, place=place), contract.tasks
    threshold, most = look.score_threshold, look.max_detections
    detections = answer.detections(score_threshold=threshold, max_detections=most) if "detect" in tasks else []
    class_ids = answer.mask() if "segment" in tasks else None
    names = dict(enumerate(contract.segmentation_classes))
    overlay = render.overlay(pixels, class_ids, detections, names=names, opacity=look.opacity)
    watch.lap("postprocess")
    file = render.encode_picture(overlay, look.format)
    watch.lap("encode")
    return Content(file, f"image/{look.format}")
