"""The answers as JSON: their shapes, their examples in /docs, and how far numbers are rounded."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from service.engine import postprocess
from service.telemetry.timing import Stage

_MODEL: JsonValue = {"name": "unihead", "version": "seed-3f0c8a1e5b7d"}
_IMAGE: JsonValue = {"width": 640, "height": 480}
_DETECTIONS: JsonValue = [{"box": [38.12, 61.5, 402.07, 473.9], "label": "cat", "label_id": 15, "score": 0.874213}]
_CLASSES: JsonValue = [{"label": "English springer", "label_id": 1, "probability": 0.913027}]
_SEGMENTS: JsonValue = [
    {"label": "background", "label_id": 0, "pixels": 215040, "fraction": 0.7},
    {"label": "cat", "label_id": 8, "pixels": 92160, "fraction": 0.3},
]
_MASK: JsonValue = {"encoding": "png", "data": "iVBORw0KGgo..."}
_TIMING: JsonValue = {
    "decode": 1.5,
    "preprocess": 0.9,
    "queue": 0.1,
    "forward": 21.4,
    "postprocess": 0.2,
    "encode": 0.6,
    "total": 24.6,
}
_CLASS_OF_PIXELS = "as in `segments`: position in `segmentation_classes` of the model's contract, `GET /info`"


def _example(**parts: JsonValue) -> ConfigDict:
    return ConfigDict(json_schema_extra={"example": {"model": _MODEL, "image": _IMAGE, **parts, "timing_ms": _TIMING}})


class ModelName(BaseModel):
    """Which model answered."""

    name: str
    version: str = Field(description="preset and the first digits of the weights' SHA-256")


class ImageSize(BaseModel):
    """The upright picture, after its EXIF orientation; in pixels."""

    width: int
    height: int


class Detection(BaseModel):
    """One object found."""

    box: Annotated[list[float], Field(min_length=4, max_length=4)] = Field(
        description="x1, y1, x2, y2 in pixels of the upright original, clipped to it"
    )
    label: str
    label_id: int = Field(description="position in `detection_classes` of the model's contract, `GET /info`")
    score: float = Field(ge=0, le=1)

    @classmethod
    def of(cls, found: postprocess.Detection) -> Detection:
        """Round to a hundredth of a pixel and a millionth of score."""
        box = [round(side, 2) for side in found.box]
        return cls(box=box, label=found.label, label_id=found.label_id, score=round(found.score, 6))


class ClassScore(BaseModel):
    """How probable one class is for the whole picture."""

    label: str
    label_id: int = Field(description="position in `classification_classes` of the model's contract, `GET /info`")
    probability: float = Field(ge=0, le=1)

    @classmethod
    def of(cls, scored: postprocess.ClassScore) -> ClassScore:
        """Round to a millionth."""
        return cls(label=scored.label, label_id=scored.label_id, probability=round(scored.probability, 6))


class Segment(BaseModel):
    """How much of the picture one class covers."""

    label: str
    label_id: int = Field(
        description="position in `segmentation_classes` of the model's contract, `GET /info`; value of these pixels in "
        "the mask"
    )
    pixels: int
    fraction: float = Field(ge=0, le=1)

    @classmethod
    def of(cls, segment: postprocess.Segment) -> Segment:
        """Round to a millionth."""
        return cls(
            label=segment.label, label_id=segment.label_id, pixels=segment.pixels, fraction=round(segment.fraction, 6)
        )


class PngMask(BaseModel):
    """Class ids of all pixels as a palette PNG of the original's size."""

    encoding: Literal["png"] = "png"
    data: str = Field(description="base64")

    @classmethod
    def of(cls, png: bytes) -> PngMask:
        """Wrap a PNG file."""
        return cls(data=base64.b64encode(png).decode("ascii"))


class RleSegment(BaseModel):
    """The pixels of one class."""

    label_id: int = Field(description=_CLASS_OF_PIXELS)
    counts: str = Field(description="COCO's compressed run lengths, column by column")


class RleMask(BaseModel):
    """Run lengths as COCO has them: `{"size": size, "counts": counts}` is what pycocotools decodes."""

    encoding: Literal["rle"] = "rle"
    size: tuple[int, int] = Field(description="height and width in pixels")
    segments: list[RleSegment] = Field(description="every class that occurs, lowest id first")


class PolygonSegment(BaseModel):
    """The outlines of one class."""

    label_id: int = Field(description=_CLASS_OF_PIXELS)
    polygons: list[list[list[int]]] = Field(
        description="connected pieces; each is its outline, then its holes, as x1, y1, x2, y2, ... in pixels"
    )


class PolygonMask(BaseModel):
    """Outlines with holes, thinned; filled by the even-odd rule they cover the mask with an IoU of at least 0.98."""

    encoding: Literal["polygons"] = "polygons"
    size: tuple[int, int] = Field(description="height and width in pixels")
    segments: list[PolygonSegment] = Field(description="every class that occurs, lowest id first")


class RawMask(BaseModel):
    """Class ids of all pixels, row by row, a byte each."""

    encoding: Literal["raw"] = "raw"
    dtype: Literal["uint8"] = "uint8"
    size: tuple[int, int] = Field(description="height and width in pixels")
    data: str = Field(description="base64 of height x width bytes")


Mask: TypeAlias = Annotated[
    PngMask | RleMask | PolygonMask | RawMask,
    Field(discriminator="encoding", description="as the parameter `mask` asks; absent with `none`"),
]

_Timings = Annotated[
    dict[Stage, float],
    Field(description="milliseconds by stage; the header Server-Timing counts the writing of this JSON too"),
]


class SegmentResponse(BaseModel):
    """The answer of POST /segment."""

    model_config = _example(segments=_SEGMENTS, mask=_MASK)
    model: ModelName
    image: ImageSize
    segments: list[Segment] = Field(description="the classes that occur, largest first")
    mask: Mask | None = None
    timing_ms: _Timings


class DetectResponse(BaseModel):
    """The answer of POST /detect."""

    model_config = _example(detections=_DETECTIONS)
    model: ModelName
    image: ImageSize
    detections: list[Detection] = Field(description="highest score first")
    timing_ms: _Timings


class ClassifyResponse(BaseModel):
    """The answer of POST /classify."""

    model_config = _example(classes=_CLASSES)
    model: ModelName
    image: ImageSize
    classes: list[ClassScore] = Field(description="most probable first")
    timing_ms: _Timings


class PredictResponse(BaseModel):
    """The answer of POST /predict: the parts of the tasks that were asked for, or that the model serves; no others."""

    model_config = _example(segments=_SEGMENTS, mask=_MASK, detections=_DETECTIONS, classes=_CLASSES)
    model: ModelName
    image: ImageSize
    segments: list[Segment] | None = Field(None, description="with the task segment; largest first")
    mask: Mask | None = None
    detections: list[Detection] | None = Field(None, description="with the task detect; highest score first")
    classes: list[ClassScore] | None = Field(None, description="with the task classify; most probable first")
    timing_ms: _Timings


PictureResponse: TypeAlias = SegmentResponse | DetectResponse | ClassifyResponse | PredictResponse


class Threads(BaseModel):
    """How the CPUs are used, and why."""

    cpus: int = Field(description="that pictures may use")
    forward_passes: int = Field(description="at once, of one thread each")
    alone: int = Field(description="threads of a pass while no other picture is worked on; 1 where more are not faster")
    workers: int = Field(description="pictures at once between bytes and answer")
    reason: str = Field(description="where the number of CPUs comes from")


class Info(BaseModel):
    """What runs here."""

    model: dict[str, str] = Field(description="name, version, preset, SHA-256 of the file")
    contract: dict[str, Any] = Field(description="everything the model file says about itself")
    versions: dict[str, str] = Field(description="of this service, Python and the libraries that compute")
    last_reload: dict[str, Any] | None = Field(
        description="how the latest reload of the model ended; null before the first"
    )
    keys: dict[str, Any] | None = Field(
        description="how many keys are in force, and how the latest reading of their file ended; null if none is needed"
    )
    limits: dict[str, int | float] = Field(description="settings that bound bytes, pixels, waiting and sharing")
    threads: Threads
