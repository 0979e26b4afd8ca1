"""What is known about whole pictures: classes that are there, and classes that are not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from training.data.labelling.faults import LabellingError
from training.data.taxonomy import VOC_SAME_AS_COCO
from training.options.base import Frozen, describe_faults

_TWINS: Final = {one: other for pair in VOC_SAME_AS_COCO for one, other in (pair, pair[::-1])}
_WANTED: Final = 'wanted {"a.jpg": {"present": ["dog"], "absent": ["cat"]}, ...}'


class ImageLabels(Frozen):
    """Of one picture; about classes that are in neither list nothing is known."""

    present: tuple[str, ...] = Field((), description="classes of which the picture shows something")
    absent: tuple[str, ...] = Field((), description="classes of which it shows nothing")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if both := sorted(set(self.present) & set(self.absent)):
            raise ValueError(f"{both[0]!r} is in present and in absent; wanted it in one of them")
        return self


@dataclass(frozen=True, slots=True)
class Known:
    """The same by position in a list of names."""

    present: frozenset[int] = frozenset()
    absent: frozenset[int] = frozenset()


def load_image_labels(path: Path) -> Mapping[str, ImageLabels]:
    """Read the labels of whole pictures, by the pictures' paths from their folder, with forward slashes.

    Raises:
        LabellingError: it cannot be read, or is something else.
    """
    try:
        return TypeAdapter(dict[str, ImageLabels]).validate_json(path.read_bytes())
    except OSError as error:
        raise LabellingError(f"{path}: {error.strerror}; {_WANTED}") from error
    except ValidationError as error:
        raise LabellingError(f"{path}: {describe_faults(error)}; {_WANTED}") from error


def find_known(labels: ImageLabels, names: Sequence[str]) -> Known:
    """Find the classes of a picture among names; VOC's and COCO's names of one thing are the same."""
    place = {name: position for position, name in enumerate(names)}

    def find(classes: Collection[str]) -> frozenset[int]:
        found = (place.get(name, place.get(_TWINS.get(name, name))) for name in classes)
        return frozenset(position for position in found if position is not None)

    return Known(find(labels.present), find(labels.absent))


def find_strangers(labels: Mapping[str, ImageLabels], names: Collection[str]) -> list[str]:
    """Classes that no teacher knows, in order: they say nothing here, and may be misspelt."""
    every = {name for each in labels.values() for name in (*each.present, *each.absent)}
    return sorted(name for name in every if not {name, _TWINS.get(name, name)} & set(names))
