"""The forms that a mask may take in an answer."""

from __future__ import annotations

import base64
from typing import Literal, TypeAlias

from service.answers import render
from service.answers.polygons import find_polygons
from service.answers.rle import encode_rle
from service.answers.schemas import Mask, PngMask, PolygonMask, PolygonSegment, RawMask, RleMask, RleSegment
from service.engine import postprocess
from service.engine.postprocess import Answer
from service.telemetry.timing import Stopwatch

MaskFormat: TypeAlias = Literal["png", "rle", "polygons", "raw", "none"]


def write_mask(answer: Answer, watch: Stopwatch, form: MaskFormat) -> Mask | None:
    """Bring the mask to the original's size and write it; laps `postprocess` and `encode`.

    Args:
        answer: of the forward pass.
        watch: of the request.
        form: that is asked for; with "none" nothing is computed.
    """
    if form == "none":
        return None
    prediction, place, stride = answer.prediction, answer.place, answer.contract.mask_stride
    size = place.height, place.width
    mask: Mask
    if form == "polygons":
        found = find_polygons(prediction.mask, *place.cells_of_pixels(stride))
        watch.lap("postprocess")
        segments = [
            PolygonSegment(label_id=class_id, polygons=[polygon.rings() for polygon in polygons])
            for class_id, polygons in found.items()
        ]
        mask = PolygonMask(size=size, segments=segments)
    else:
        class_ids = postprocess.mask(prediction, place, mask_stride=stride)
        watch.lap("postprocess")
        if form == "png":
            mask = PngMask.of(render.encode_mask(class_ids))
        elif form == "rle":
            runs = encode_rle(class_ids)
            mask = RleMask(size=size, segments=[RleSegment(label_id=one, counts=runs[one]) for one in runs])
        else:
            mask = RawMask(size=size, data=base64.b64encode(class_ids.tobytes()).decode("ascii"))
    watch.lap("encode")
    return mask
