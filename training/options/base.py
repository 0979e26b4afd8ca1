"""What all options share."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, ValidationError


class Task(StrEnum):
    """What the model can be asked; the order is the order of the stages."""

    SEGMENTATION = "segmentation"
    DETECTION = "detection"
    CLASSIFICATION = "classification"


class Frozen(BaseModel):
    """Values that never change; a key nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def describe_faults(error: ValidationError) -> str:
    """Put what is wrong with a file's values into one line."""
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
