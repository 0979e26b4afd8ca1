"""The step after the last stage, in which all tasks learn together."""

from __future__ import annotations

from pydantic import Field

from training.options.base import Frozen

POLISH = "polish"  # where a stage would be named by its task


class PolishConfig(Frozen):
    """Joint polish (`training.polish`): each task with the augmentations of its own stage."""

    epochs: int = Field(0, ge=0, description="of the task with most pictures; 0: no polish")
    batch_size: int = Field(8, gt=0, description="pictures of each task a step")
    learning_rate: float = Field(1e-4, gt=0, description="peak, the same for all parts of the network")
    ema: float = Field(0.99, ge=0, lt=1, description="decay of the average of the weights that the polish ends with")
    holdout: float = Field(
        0.1,
        gt=0,
        lt=0.5,
        description="share of the training pictures that no stage learns from and that judge the polish, "
        "where the run itself holds none out",
    )
    tolerance: float = Field(
        0.0, ge=0, description="how much of its metric, 0..1, a task may lose; if one loses more, nothing is kept"
    )
