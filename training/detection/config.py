"""What the anchor-free detection loss can be told."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PointDetectionConfig(BaseModel):
    """Which points learn which box, and how the parts of the loss weigh."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    assigner: Literal["centre", "task_aligned"] = Field(
        "centre", description="centre: points near a box's centre (FCOS); task_aligned: points that find it best (TOOD)"
    )
    centre_radius: float = Field(1.5, gt=0, description="how far from a box's centre its points lie; in strides")
    reach: float = Field(
        8.0,
        gt=0,
        description="centre: the farthest side that a level's points have to find, in strides; larger boxes go to the "
        "next level. FCOS' 8 (arXiv:1904.01355, sec. 4.1) is for inputs of 800 px",
    )
    top_k: int = Field(9, gt=0, description="most points that the task-aligned assigner gives to one box")
    warmup: float = Field(
        0.1, ge=0, le=1, description="fraction of training before task_aligned takes over from centre"
    )
    score_loss: Literal["focal", "quality_focal"] = Field(
        "focal", description="focal: a point's score is to be 1 for its box; quality_focal: as good as its box is"
    )
    score_weight: float = Field(1.0, ge=0)
    box_weight: float = Field(2.0, ge=0)
    distribution_weight: float = Field(0.25, ge=0, description="counts only where the head says distributions")

    def is_task_aligned(self, progress: float) -> bool:
        """Say whether points are assigned by what the network finds at `progress` (0..1) of the training."""
        return self.assigner == "task_aligned" and progress >= self.warmup


def prior_bias(prior: float) -> float:
    """Give the bias whose sigmoid is `prior`, 0 < prior < 1 (RetinaNet, arXiv:1708.02002, sec. 4.1)."""
    return -math.log((1 - prior) / prior)
