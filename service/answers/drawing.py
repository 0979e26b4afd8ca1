"""The picture that was sent, with what the model saw drawn over it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from service.answers import render
from service.answers.finish import Finished
from service.answers.render import PictureFormat
from service.engine import postprocess
from service.engine.postprocess import Answer
from service.pictures.imaging import decode_for, fit, resize
from service.pictures.limits import PictureLimits
from service.telemetry.timing import Stopwatch

# Drawing three megapixels and writing them as PNG takes a quarter of a second, which is as long as a worker should.
MAX_SIDE = 2048


@dataclass(frozen=True, slots=True)
class Look:
    """How to draw.

    Attributes:
        score_threshold: boxes that score less are left out.
        max_detections: boxes at most.
        opacity: of the mask, 0..1.
        format: of the file.
        max_side: a picture with a longer side is drawn smaller; in pixels.
    """

    score_threshold: float = 0.3
    max_detections: int = 100
    opacity: float = 0.5
    format: PictureFormat = "jpeg"
    max_side: int = MAX_SIDE


def finish_overlay(answer: Answer, watch: Stopwatch, *, picture: bytes, look: Look, limits: PictureLimits) -> Finished:
    """Decode a picture once more, at the size that is to be drawn, and draw over it; laps `postprocess` and `encode`.

    Args:
        answer: of the forward pass, which saw no more of the picture than the network's input has room for.
        watch: of the request.
        picture: the file.
        look: how to draw.
        limits: beyond which a file is refused.

    Raises:
        DamagedImage: the part of the picture that the pass did without cannot be decoded.
    """
    contract = answer.contract
    pixels, (width, height) = decode_for(look.max_side, picture, limits)
    if max(width, height) > look.max_side:
        drawn = fit(width, height, look.max_side)
        width, height = drawn.resized_width, drawn.resized_height
        pixels = resize(pixels, width, height)
    place = dataclasses.replace(answer.place, width=width, height=height)
    detections = postprocess.detections(
        answer.prediction,
        place,
        contract.detection_classes,
        score_threshold=look.score_threshold,
        max_detections=look.max_detections,
    )
    class_ids = postprocess.mask(answer.prediction, place, mask_stride=contract.mask_stride)
    overlay = render.overlay(
        pixels, class_ids, detections, names=dict(enumerate(contract.segmentation_classes)), opacity=look.opacity
    )
    watch.lap("postprocess")
    file = render.encode_picture(overlay, look.format)
    watch.lap("encode")
    return Finished(file, f"image/{look.format}")
