"""The data file: sources in TOML, each with its task, path, layout, split, and what its labels mean."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from training.data.datasets import SplitName
from training.data.layouts.faults import DataError
from training.data.layouts.readings import Layout
from training.data.taxonomy import COCO, IMAGENETTE, VOC
from training.options.base import Frozen, Task, describe_faults

Share = Annotated[float, Field(ge=0, le=1)]

# What `values` calls a mask value that is neither object nor background.
VOID_NAME: Final = "void"
# What is neither object nor void; of boxes, what is left out.
BACKGROUND: Final = "background"
SHIPPED: Final = {"voc": VOC, "coco": COCO, "imagenette": tuple(IMAGENETTE.values())}
_LARGEST_VALUE: Final = 255


class Source(Frozen):
    """One set, or one split of a set."""

    task: Task = Field(description="segmentation, detection or classification")
    path: str = Field(description="the set's folder, or its annotation file; from the root of the data")
    layout: Layout | None = Field(None, description="how it lies there; guessed if not given")
    split: SplitName | None = Field(
        None,
        description="what all of it is for: train, val, or choose (measured for choices, never trained on); "
        "if not given, the set's own splits",
    )
    hold_out: Share = Field(0.0, description="share of its train pictures that becomes val; the same in every run")
    weight: float = Field(1.0, gt=0, description="how much more often than others its pictures are drawn")
    names: tuple[str, ...] = Field(
        (), description="names by label or mask value where the set has none, background first"
    )
    aliases: dict[str, str] = Field({}, description="its name of a class = the name that the model has for it")
    known: tuple[str, ...] | Literal["all"] = Field(
        (),
        description="classes that this source labels, or `all`; those of other sources are unknown in its pictures, "
        "not background; not given: those that it names",
    )
    others: Literal["void", "background"] | None = Field(
        None, description="what its classes become that [classes] does not list; not given: they are an error"
    )
    values: dict[int, str] = Field({}, description="mask value = name; `void` for what is neither; others are an error")
    image_labels: tuple[str, ...] = Field(
        (),
        description="classes of which lists `image_labels` of pictures in COCO JSON are complete: boxes of one that a "
        "list lacks are wrong, and one that it has and no box is of is unknown in that picture",
    )
    min_score: Share = Field(0.0, description="labels that carry a score are objects from here on")
    unsure_score: Share | None = Field(
        None, description="from here to `min_score` a box is neither object nor background; below it counts for nothing"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.layout is not None and self.layout.task is not self.task:
            raise ValueError(f"layout {self.layout.value!r} is for {self.layout.task}, the task is {self.task}")
        if self.values and (self.names or self.task is not Task.SEGMENTATION):
            raise ValueError("values are for masks, and in place of names; take one of them out")
        if strange := [value for value in self.values if not 0 <= value <= _LARGEST_VALUE]:
            raise ValueError(f"values has {strange[0]}; a mask holds 0 to {_LARGEST_VALUE}")
        if self.image_labels and self.task is not Task.DETECTION:
            raise ValueError(f"image_labels is for boxes, the task is {self.task}; take it out")
        if self.unsure_score is not None and self.unsure_score > self.min_score:
            raise ValueError(f"unsure_score {self.unsure_score} is above min_score {self.min_score}; wanted it below")
        if self.hold_out and self.split not in {None, "train"}:
            raise ValueError(f"hold_out takes pictures of train, and split is {self.split!r}")
        return self


class Classes(Frozen):
    """Names by label of each task: a list, or a shipped one (voc, coco, imagenette); else as the sources have them."""

    segmentation: tuple[str, ...] | str = ()
    detection: tuple[str, ...] | str = ()
    classification: tuple[str, ...] | str = ()

    def names(self, task: Task) -> tuple[str, ...]:
        """The names of a task; none where the sources decide."""
        value: tuple[str, ...] | str = getattr(self, task.value)
        return SHIPPED[value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        for task in Task:
            value = getattr(self, task.value)
            if isinstance(value, str) and value not in SHIPPED:
                raise ValueError(f"{task} is {value!r}; wanted a list of names, or one of {', '.join(SHIPPED)}")
        return self


class DataFile(Frozen):
    """What a run learns from."""

    classes: Classes = Classes()
    same: dict[str, str] = Field(
        {}, description="segmentation's name of a class = detection's name of the same thing; equal names are the same"
    )
    source: tuple[Source, ...] = Field(min_length=1)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that have a source, in the order of `Task`."""
        return tuple(task for task in Task if any(source.task is task for source in self.source))


def load_data_file(path: Path) -> DataFile:
    """Read a data file.

    Raises:
        DataError: it cannot be read, is no TOML, or has a key or value that is not known.
    """
    try:
        return DataFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; wanted a data file or a folder") from error
    except ValidationError as error:
        known = ", ".join(Source.model_fields)
        raise DataError(f"{path}: {describe_faults(error)}; a [[source]] may have {known}") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}; wanted TOML with one [[source]] for each set") from error


def format_data_file(data: DataFile) -> str:
    """Write a data file that means the same; defaults are left out."""
    lines: list[str] = []
    for section in ("classes", "same"):
        value = data.classes.model_dump(exclude_defaults=True) if section == "classes" else data.same
        if value:
            lines += [f"[{section}]", *(f"{_key(key)} = {_format(each)}" for key, each in value.items()), ""]
    for source in data.source:
        lines.append("[[source]]")
        for key, value in source.model_dump(mode="json", exclude_defaults=True).items():
            lines.append(f"{key} = {_format(value)}")
        lines.append("")
    return "\n".join(lines)


def _key(key: object) -> str:
    text = str(key)
    return text if text and text.isascii() and text.replace("_", "").replace("-", "").isalnum() else json.dumps(text)


def _format(value: object) -> str:
    """A value as TOML; its strings are those of JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_format(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_format, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
