"""What all options share."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Task(StrEnum):
    """What the model can be asked; the order is the order of the stages."""

    SEGMENTATION = "segmentation"
    DETECTION = "detection"
    CLASSIFICATION = "classification"


class Frozen(BaseModel):
    """Values that never change; a key nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
