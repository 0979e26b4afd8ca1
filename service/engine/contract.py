"""What a unihead ONNX file says about itself: read from its metadata, checked, standard library only."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from service.errors import ContractError

METADATA_KEY = "unihead.contract"
FORMAT_VERSION = 1
INPUT_NAME = "images"
_MAX_WORDS = 200
_TYPES: dict[type, tuple[str, ...]] = {
    str: ("name", "version", "preset", "git_commit", "weights_sha256"),
    int: ("input_size", "mask_stride", "max_detections"),
}
OUTPUT_NAMES = ("boxes", "scores", "labels", "num_detections", "mask", "class_probs")
# Element types as ONNX Runtime writes them; that of the input among them.
ELEMENT_TYPES = {
    INPUT_NAME: "tensor(uint8)",
    "boxes": "tensor(float)",
    "scores": "tensor(float)",
    "labels": "tensor(int64)",
    "num_detections": "tensor(int64)",
    "mask": "tensor(uint8)",
    "class_probs": "tensor(float)",
}


@dataclass(frozen=True, slots=True)
class LetterboxRule:
    """How a picture of any shape becomes the network's square input: scaled to fit, placed top left, padded.

    Attributes:
        fill: RGB of the padding, 0..255 (the ImageNet mean, so that padding is zero after normalisation).
        anchor: where the picture lies in the square; only "top-left" is known.
    """

    fill: tuple[int, int, int] = (124, 116, 104)
    anchor: str = "top-left"


@dataclass(frozen=True, slots=True)
class GoldenDetection:
    """One box that the model drew on a golden picture when it was exported."""

    box: tuple[float, float, float, float]  # xyxy, pixels of the original picture
    label: str  # of detection_classes
    score: float  # 0..1


@dataclass(frozen=True, slots=True)
class GoldenAnswer:
    """What the model answered for one known picture when it was exported."""

    file: str  # name of the picture
    sha256: str  # of the picture's bytes
    class_probs: tuple[float, ...]  # in the order of classification_classes
    detections: tuple[GoldenDetection, ...]  # the best ones, highest score first
    mask_fractions: dict[str, float]  # share of the picture per segmentation class that occurs in it


@dataclass(frozen=True, slots=True)
class ModelContract:
    """Everything the service must know about a model file; JSON under `unihead.contract` in its metadata.

    Attributes:
        version: preset and the first 12 hex digits of `weights_sha256`, then what export was told to change.
        preset: that the network was trained by.
        git_commit: of the code that trained it.
        weights_sha256: over the names and bytes of all tensors of the checkpoint.
        input_size: S; `images` is uint8 [N, S, S, 3] RGB, letterboxed.
        mask_stride: `mask` is uint8 [N, S / mask_stride, S / mask_stride], class ids.
        detection_strides: strides of the detection grids, in input pixels.
        score_floor: boxes that score less never leave the graph.
        iou_threshold: of two boxes of one class that overlap more, the graph keeps the better one.
        max_detections: K of the graph's outputs `boxes`, `scores`, `labels`.
        segmentation_classes: names by class id, background first.
        detection_classes: names by class id.
        classification_classes: names by class id.
        letterbox: how a picture becomes the input.
        metrics: measured on the validation split through this file's own pre- and post-processing.
        golden: what it answered about known pictures when it was exported; a service asks it again when it loads it.
        name: of the model, in answers.
        format_version: of this contract.
    """

    version: str
    preset: str
    git_commit: str
    weights_sha256: str
    input_size: int
    mask_stride: int
    detection_strides: tuple[int, ...]
    score_floor: float
    iou_threshold: float
    max_detections: int
    segmentation_classes: tuple[str, ...]
    detection_classes: tuple[str, ...]
    classification_classes: tuple[str, ...]
    letterbox: LetterboxRule = field(default_factory=LetterboxRule)
    metrics: dict[str, float] = field(default_factory=dict)
    golden: tuple[GoldenAnswer, ...] = ()
    name: str = "unihead"
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise ContractError(f"contract format is {self.format_version}, this service reads {FORMAT_VERSION}")
        if self.letterbox.anchor != "top-left":
            raise ContractError(f"letterbox anchor is {self.letterbox.anchor!r}, this service knows 'top-left'")
        if self.input_size <= 0 or self.mask_stride <= 0 or self.input_size % self.mask_stride:
            raise ContractError(
                f"input_size {self.input_size} must be a positive multiple of mask_stride {self.mask_stride}"
            )
        for task in ("segmentation", "detection", "classification"):
            names: object = getattr(self, f"{task}_classes")
            if not (isinstance(names, tuple) and names and all(isinstance(name, str) for name in names)):
                raise ContractError(f"{task}_classes must be names, at least one; got {names!r}"[:_MAX_WORDS])
            if len(set(names)) != len(names):
                raise ContractError(f"{task}_classes must be distinct; {len(names)} names are {len(set(names))}")
        for kind, fields in _TYPES.items():
            for field_name in fields:
                value: object = getattr(self, field_name)
                if type(value) is not kind:
                    raise ContractError(f"{field_name} must be {kind.__name__}; got {value!r}"[:_MAX_WORDS])

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each of OUTPUT_NAMES for one picture; the graph's outputs have N before it."""
        cells = self.input_size // self.mask_stride
        return {
            "boxes": (self.max_detections, 4),
            "scores": (self.max_detections,),
            "labels": (self.max_detections,),
            "num_detections": (),
            "mask": (cells, cells),
            "class_probs": (len(self.classification_classes),),
        }

    def to_json(self) -> str:
        """Write the contract as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, separators=(",", ":"))


def parse_contract(text: str) -> ModelContract:
    """Read a contract back from `ModelContract.to_json`.

    Raises:
        ContractError: not JSON, a key missing or unknown, or a value out of its range.
    """
    try:
        values: dict[str, Any] = json.loads(text)
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        values["letterbox"] = _letterbox(values["letterbox"])
        values["golden"] = tuple(_golden(answer) for answer in values["golden"])
        return ModelContract(**values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ContractError(f"the model's contract cannot be read: {error}") from error


def _letterbox(values: dict[str, Any]) -> LetterboxRule:
    red, green, blue = values["fill"]
    return LetterboxRule(fill=(red, green, blue), anchor=values["anchor"])


def _golden(values: dict[str, Any]) -> GoldenAnswer:
    return GoldenAnswer(
        file=values["file"],
        sha256=values["sha256"],
        class_probs=tuple(float(prob) for prob in values["class_probs"]),
        detections=tuple(_golden_detection(item) for item in values["detections"]),
        mask_fractions={label: float(fraction) for label, fraction in values["mask_fractions"].items()},
    )


def _golden_detection(values: dict[str, Any]) -> GoldenDetection:
    left, top, right, bottom = (float(side) for side in values["box"])
    return GoldenDetection((left, top, right, bottom), values["label"], float(values["score"]))
