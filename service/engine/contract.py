"""What a unihead ONNX file says about itself: read from its metadata, checked, standard library only."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from service.errors import ContractError, TaskNotServed

METADATA_KEY = "unihead.contract"
FORMAT_VERSION = 1
INPUT_NAME = "images"
_MAX_WORDS = 200
_TYPES: dict[type, tuple[str, ...]] = {
    str: ("name", "version", "preset", "git_commit", "weights_sha256"),
    int: ("input_size", "mask_stride", "max_detections"),
}
# What a model may answer, in the words of the API: the paths, the parameter `tasks`, the labels of metrics.
ModelTask: TypeAlias = Literal["segment", "detect", "classify"]
MODEL_TASKS: tuple[ModelTask, ...] = get_args(ModelTask)
# The field that holds the names of a task's classes: `label_id` in its answers is a position in it.
CLASSES_OF: dict[ModelTask, str] = {
    "segment": "segmentation_classes",
    "detect": "detection_classes",
    "classify": "classification_classes",
}
# The outputs of the graph by the task that they belong to, in the order in which a graph has them.
TASK_OF = {
    "boxes": "detect",
    "scores": "detect",
    "labels": "detect",
    "num_detections": "detect",
    "mask": "segment",
    "class_probs": "classify",
}
OUTPUT_NAMES = tuple(TASK_OF)
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
    """What the model answered for one known picture when it was exported; nothing of tasks it does not serve."""

    file: str  # name of the picture
    sha256: str  # of the picture's bytes
    class_probs: tuple[float, ...]  # in the order of classification_classes
    detections: tuple[GoldenDetection, ...]  # the best ones, highest score first
    mask_fractions: dict[str, float]  # share of the picture per segmentation class that occurs in it


@dataclass(frozen=True, slots=True)
class GoldenTolerance:
    """How far an answer about a golden picture may be from the file's, on whatever machine: measured at export.

    The defaults are for files that do not say it, and for exports where there is nothing to measure with.
    """

    class_probs: float = 0.02  # of each class
    scores: float = 0.02  # of each box
    boxes_px: float = 8.0  # of each side of a box; in pixels of the original picture
    displaced: int = 3  # of the best boxes, how many may be others
    mask_fractions: float = 0.02  # of each class

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if type(value) not in {int, float} or not 0 <= value < math.inf:
                raise ContractError(f"golden_tolerance.{name} must be a number >= 0; got {value!r}"[:_MAX_WORDS])


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
        score_floor: boxes that the network scores less, before the calibration below, never leave the graph.
        iou_threshold: of two boxes of one class that overlap more, the graph keeps the better one.
        max_detections: K of the graph's outputs `boxes`, `scores`, `labels`.
        segmentation_classes: names by class id, background first; none where the task is not served.
        detection_classes: names by class id; none where the task is not served.
        classification_classes: names by class id; none where the task is not served.
        tasks: that the model serves, of `segment`, `detect` and `classify` and in this order; the graph has the outputs
            of these and no others. A file that does not say it serves all three.
        letterbox: how a picture becomes the input.
        metrics: measured on the validation split through this file's own pre- and post-processing.
        golden: what it answered about known pictures when it was exported; a service asks it again when it loads it.
        golden_tolerance: how far answers about those may be from these; a file that does not say it has the defaults.
        name: of the model, in answers.
        format_version: of this contract.
        score_threshold: boxes that score less are left out of the answer to a request that names no threshold; 0..1.
        score_scale: times the logit of the network's score of a box, above 0; with `score_bias`, in the graph already.
        score_bias: plus this is the logit of the score that leaves the graph: the chance that the box is right.
        class_temperature: logits of the classes are divided by it before the softmax, above 0; in the graph already.
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
    tasks: tuple[ModelTask, ...] = MODEL_TASKS
    letterbox: LetterboxRule = field(default_factory=LetterboxRule)
    metrics: dict[str, float] = field(default_factory=dict)
    golden: tuple[GoldenAnswer, ...] = ()
    golden_tolerance: GoldenTolerance = field(default_factory=GoldenTolerance)
    name: str = "unihead"
    format_version: int = FORMAT_VERSION
    # Files are older than these; the values are what was true of them.
    score_threshold: float = 0.3
    score_scale: float = 1.0
    score_bias: float = 0.0
    class_temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise ContractError(f"contract format is {self.format_version}, this service reads {FORMAT_VERSION}")
        if self.letterbox.anchor != "top-left":
            raise ContractError(f"letterbox anchor is {self.letterbox.anchor!r}, this service knows 'top-left'")
        if self.input_size <= 0 or self.mask_stride <= 0 or self.input_size % self.mask_stride:
            raise ContractError(
                f"input_size {self.input_size} must be a positive multiple of mask_stride {self.mask_stride}"
            )
        if not (type(self.score_threshold) in (int, float) and 0 <= self.score_threshold <= 1):
            raise ContractError(f"score_threshold must be from 0 to 1; got {self.score_threshold!r}"[:_MAX_WORDS])
        self._check_tasks()
        for kind, fields in _TYPES.items():
            for field_name in fields:
                value: object = getattr(self, field_name)
                if type(value) is not kind:
                    raise ContractError(f"{field_name} must be {kind.__name__}; got {value!r}"[:_MAX_WORDS])

    def _check_tasks(self) -> None:
        if not self.tasks or self.tasks != tuple(task for task in MODEL_TASKS if task in self.tasks):
            wanted = f"some of {', '.join(MODEL_TASKS)}, each once, in this order"
            raise ContractError(f"tasks must be {wanted}; got {self.tasks!r}"[:_MAX_WORDS])
        for task, field_of_names in CLASSES_OF.items():
            names: object = getattr(self, field_of_names)
            if task not in self.tasks:
                if names != ():
                    words = f"{field_of_names} must be empty, for {task} is not among the tasks; got {names!r}"
                    raise ContractError(words[:_MAX_WORDS])
                continue
            if not (isinstance(names, tuple) and names and all(isinstance(name, str) for name in names)):
                raise ContractError(f"{field_of_names} must be names, at least one; got {names!r}"[:_MAX_WORDS])
            if len(set(names)) != len(names):
                raise ContractError(f"{field_of_names} must be distinct; {len(names)} names are {len(set(names))}")

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each output for one picture, in the graph's order; the graph's outputs have N before it."""
        cells = self.input_size // self.mask_stride
        shapes: dict[str, tuple[int, ...]] = {
            "boxes": (self.max_detections, 4),
            "scores": (self.max_detections,),
            "labels": (self.max_detections,),
            "num_detections": (),
            "mask": (cells, cells),
            "class_probs": (len(self.classification_classes),),
        }
        return {name: shapes[name] for name, task in TASK_OF.items() if task in self.tasks}

    def require_task(self, *any_of: ModelTask) -> None:
        """Return if the model serves one of these tasks.

        Raises:
            TaskNotServed: it serves none of them; says which it serves.
        """
        if not any(task in self.tasks for task in any_of):
            raise make_not_served(any_of, self.tasks)

    def to_json(self) -> str:
        """Write the contract as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, separators=(",", ":"))


def make_not_served(any_of: Iterable[str], tasks: Collection[str]) -> TaskNotServed:
    """Build the error of a question for tasks that a model does not serve; it serves others."""
    served = ", ".join(task for task in MODEL_TASKS if task in tasks)
    return TaskNotServed(f"this model does not serve {' or '.join(any_of)}; it serves {served} (`GET /info`)")


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
        if "golden_tolerance" in values:
            values["golden_tolerance"] = GoldenTolerance(**values["golden_tolerance"])
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
