"""A teacher in a few lines of TOML: how its ONNX file is fed, and what its outputs mean."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import Field, ValidationError, model_validator

from training.data.labelling.faults import LabellingError
from training.data.labelling.frame import Frame
from training.data.sets.data_file import BACKGROUND, SHIPPED
from training.data.taxonomy import load_imagenet_names
from training.options.base import Frozen, Task, describe_faults

Side = Annotated[int, Field(gt=0, le=4096)]
Level = Annotated[int, Field(ge=0, le=255)]
Activation = Literal["none", "sigmoid", "softmax"]

_IMAGENET: Final = "imagenet"
_LISTS: Final = (*SHIPPED, _IMAGENET)
_MOST_MASK_CLASSES: Final = 255  # their values are bytes, and 255 is void


class Input(Frozen):
    """How a picture becomes the network's input."""

    size: Side | tuple[Side, Side] = Field(description="side of the square, or [height, width]; in pixels")
    fit: Literal["stretch", "letterbox"] = Field(
        description="stretch: to the whole input; letterbox: its shape is kept, and the rest filled"
    )
    scale: Literal[1, 255] = Field(description="the brightest value of a pixel, before `mean` and `std`")
    mean: tuple[float, float, float] = Field((0.0, 0.0, 0.0), description="of each channel, in the order of `colour`")
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        (1.0, 1.0, 1.0), description="of each channel, in the order of `colour`"
    )
    colour: Literal["rgb", "bgr"] = Field("rgb", description="order of the channels")
    layout: Literal["nchw", "nhwc"] = Field("nchw", description="where the channels stand")
    fill: tuple[Level, Level, Level] = Field((114, 114, 114), description="RGB of what a letterbox fills, 0..255")
    place: Literal["centre", "top-left"] = Field("centre", description="where a letterbox puts the picture")
    name: str | None = Field(None, description="of the graph's input; the only one with four dimensions if not given")
    size_name: str | None = Field(
        None,
        description="input that is told a size in pixels: the picture's, or (for boxes "
        "in pixels of the input) the input's own",
    )
    size_order: Literal["wh", "hw"] = Field("wh", description="in which order")

    @property
    def frame(self) -> Frame:
        """How it is shown a picture."""
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        return Frame(height, width, self.fit == "letterbox", self.place == "centre", self.fill)


class ClassLogits(Frozen):
    """One picture, one class: [N, C]."""

    kind: Literal["class-logits"]
    name: str | None = Field(None, description="of the graph's output; the only one if not given")
    activation: Literal["softmax", "none"] = Field("softmax", description="none: they are probabilities already")


class MaskLogits(Frozen):
    """A value for each class and cell: [N, C, h, w]."""

    kind: Literal["mask-logits"]
    name: str | None = Field(None, description="of the graph's output; the only one if not given")
    layout: Literal["nchw", "nhwc"] = Field("nchw", description="where the classes stand")
    activation: Literal["softmax", "none"] = Field("softmax", description="none: they are probabilities already")


class MaskIds(Frozen):
    """The best class of each cell: [N, h, w], or with a 1 for the channel."""

    kind: Literal["mask-ids"]
    name: str | None = Field(None, description="of the graph's output; the only one if not given")


class BoxLists(Frozen):
    """Lists of boxes, as DETR-like networks give them: [N, K, 4], or [K, 4]."""

    kind: Literal["boxes"]
    boxes: str = Field("boxes", description="output with the boxes")
    scores: str = Field("scores", description="output with a score a box, or one for each of its classes")
    labels: str | None = Field(None, description="output with the class of each box; without it the best score decides")
    format: Literal["xyxy", "cxcywh", "xywh"] = Field("xyxy", description="what the four numbers are")
    unit: Literal["original", "input", "share"] = Field(
        description="pixels of the original picture, pixels of the input, or shares of the input, 0..1"
    )
    activation: Activation = Field("none", description="what makes scores out of the output")
    iou_threshold: float | None = Field(None, gt=0, le=1, description="of suppression, where the network leaves it out")


class Yolox(Frozen):
    """Grids as YOLOX gives them (arXiv:2107.08430): [N, A, 5 + C], centre, size, objectness, a score a class."""

    kind: Literal["yolox"]
    name: str | None = Field(None, description="of the graph's output; the only one if not given")
    strides: tuple[Annotated[int, Field(gt=0)], ...] = Field((8, 16, 32), min_length=1, description="of the grids")
    activation: Literal["none", "sigmoid"] = Field("none", description="what makes scores out of the output")
    iou_threshold: float = Field(0.65, gt=0, le=1, description="of suppression")


Output: TypeAlias = Annotated[ClassLogits | MaskLogits | MaskIds | BoxLists | Yolox, Field(discriminator="kind")]
_TASKS: Final = {
    "class-logits": Task.CLASSIFICATION,
    "mask-logits": Task.SEGMENTATION,
    "mask-ids": Task.SEGMENTATION,
    "boxes": Task.DETECTION,
    "yolox": Task.DETECTION,
}


class Classes(Frozen):
    """What the network's positions are called."""

    names: tuple[str, ...] | str = Field(description=f"by position: a list, or one of {', '.join(_LISTS)}")
    aliases: dict[str, str] = Field({}, description="its name of a class = the name that the labels get")
    background: int | None = Field(
        None, ge=0, description="position of what is no class; if not given, that of the name `background`"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.names, str) and self.names not in _LISTS:
            raise ValueError(f"names is {self.names!r}; wanted a list of names, or one of {', '.join(_LISTS)}")
        listed = self.listed()
        if not listed or not all(name.strip() for name in listed):
            raise ValueError("names has an empty one, or none; wanted a name for each position")
        if strange := [name for name in self.aliases if name not in listed]:
            raise ValueError(f"aliases has {strange[0]!r}, which is none of the {len(listed)} names")
        if self.background is not None and self.background >= len(listed):
            raise ValueError(f"background is {self.background}; wanted a position among {len(listed)} names, from 0")
        return self

    def listed(self) -> tuple[str, ...]:
        """The names as the network's makers have them, by position."""
        if not isinstance(self.names, str):
            return self.names
        return load_imagenet_names() if self.names == _IMAGENET else SHIPPED[self.names]

    def by_position(self) -> tuple[str | None, ...]:
        """The name that the labels get, by position; None for background. Positions may share a name."""
        named = [self.aliases.get(name, name) for name in self.listed()]
        if self.background is not None:
            return tuple(None if position == self.background else name for position, name in enumerate(named))
        return tuple(None if name == BACKGROUND else name for name in named)


class TeacherFile(Frozen):
    """What a teacher's TOML says."""

    model: str | None = Field(
        None,
        description="the ONNX file, from the TOML's folder; of the same name if not given. $NAME stands for a variable "
        "of the environment",
    )
    input: Input
    output: Output
    classes: Classes

    @property
    def task(self) -> Task:
        """What it answers."""
        return _TASKS[self.output.kind]

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that it tells apart, each once, without background."""
        return tuple(dict.fromkeys(name for name in self.classes.by_position() if name is not None))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.output, BoxLists) and self.output.unit == "original" and self.input.fit == "letterbox":
            raise ValueError('boxes in pixels of the original want fit = "stretch"; a letterbox is undone here')
        if self.task is Task.SEGMENTATION and len(self.names) >= _MOST_MASK_CLASSES:
            raise ValueError(f"a mask has no room for {len(self.names)} classes; wanted fewer than 255")
        if isinstance(self.output, Yolox):
            for side in (self.input.frame.height, self.input.frame.width):
                if uneven := [stride for stride in self.output.strides if side % stride]:
                    raise ValueError(f"size {side} is no multiple of the stride {uneven[0]}")
        return self


def load_teacher_file(path: Path) -> tuple[TeacherFile, Path]:
    """Read the description of a teacher.

    Args:
        path: the TOML, or the ONNX file that it lies beside, under the same name.

    Returns:
        What it says, and the ONNX file.

    Raises:
        LabellingError: there is none, or it cannot be understood; the sentence names file, key and what is wanted.
    """
    place = path.with_suffix(".toml")
    try:
        described = TeacherFile.model_validate(tomllib.loads(place.read_text(encoding="utf-8-sig")))
    except OSError as error:
        wanted = "wanted the TOML of a teacher, or an ONNX file with one of the same name beside it"
        raise LabellingError(f"{place}: {error.strerror}; {wanted}") from error
    except ValidationError as error:
        wanted = "wanted [input], [output] and [classes] as docs/how-to/labelling.md has them"
        raise LabellingError(f"{place}: {describe_faults(error)}; {wanted}") from error
    except ValueError as error:
        raise LabellingError(f"{place}: {error}; wanted TOML with [input], [output] and [classes]") from error
    if path.suffix == ".onnx":
        return described, path
    if described.model:
        return described, place.parent / os.path.expandvars(described.model)
    return described, place.with_suffix(".onnx")
