"""One stage: what it learns, on what, what it holds on to, and how the losses are weighed."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from training.options.augment import AugmentConfig
from training.options.base import Frozen, Task

Strength = Annotated[float, Field(ge=0)]
Part = Literal["backbone", "neck", "stem", "segmentation", "detection", "classification", "tail"]


class EwcConfig(Frozen):
    """Elastic weight consolidation (`training.continual.ewc`); on where a strength is given."""

    strength: dict[Task, Strength] = Field(default_factory=dict, description="lambda per earlier task")
    fisher: Literal["empirical", "sampled", "exact"] = Field(
        "empirical", description="squared gradients of the labels' loss, of labels drawn from the model, or of all"
    )
    online: bool = Field(False, description="one anchor for all earlier tasks instead of one each")
    decay: float = Field(0.9, ge=0, le=1, description="online: how much of the older importance stays")
    schedule: Literal["constant", "progressive"] = Field(
        "constant", description="progressive: lambda grows from 0 over the first part of the stage"
    )
    ramp: float = Field(0.4, gt=0, le=1, description="progressive: the share of the stage over which it grows")
    fraction: float = Field(1.0, gt=0, le=1, description="only this share of the weights, the most important, is held")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.fisher == "exact" and set(self.strength) - {Task.CLASSIFICATION}:
            raise ValueError("exact Fisher information is for classification; choose sampled or empirical")
        if self.online and len(set(self.strength.values())) > 1:
            raise ValueError(f"online there is one anchor, and so one strength; got {dict(self.strength)}")
        return self


class DistillationConfig(Frozen):
    """Learning without forgetting: the model as it was is the teacher, on the new task's pictures."""

    outputs: Strength = Field(0.0, description="weight of the earlier tasks' outputs")
    features: Strength = Field(0.0, description="weight of the neck's levels, mean squared difference")
    temperature: float = Field(2.0, gt=0)


class ReplayConfig(Frozen):
    """A few pictures of each earlier task, with the outputs that the model had for them (DER++, arXiv:2004.07211)."""

    pictures: int = Field(0, ge=0, le=10, description="per earlier task; 0: off")
    batch: int = Field(2, gt=0, description="pictures per step")
    labels: Strength = Field(1.0, description="weight of their labels")
    outputs: Strength = Field(1.0, description="weight of the stored outputs")


class AgemConfig(Frozen):
    """A-GEM: the gradient may not point against that of a few remembered pictures (arXiv:1812.00420)."""

    pictures: int = Field(0, ge=0, le=10, description="per earlier task; 0: off")
    batch: int = Field(2, gt=0, description="pictures per step")


class TeacherConfig(Frozen):
    """A larger network whose outputs are learned beside the labels; never asked about validation pictures."""

    source: str = Field(
        "",
        description="checkpoint.pt of a run, FILE.onnx, FILE.toml that describes one of any make, torchvision:NAME, or "
        "efficientnet_liteN",
    )
    task: Task | None = Field(None, description="what it teaches; the stage's own task if not given")
    weight: Strength = Field(1.0)
    temperature: float = Field(2.0, gt=0)


class StageConfig(Frozen):
    """One stage: the task it learns, and the tasks it must not forget."""

    task: Task
    epochs: int = Field(gt=0)
    sampling: Literal["uniform", "class"] = Field(
        "uniform",
        description="class: pictures of rare classes are drawn more often (repeat-factor sampling, arXiv:1908.03195), "
        "times the weights of the data file; an epoch keeps its length",
    )
    sampling_threshold: float = Field(
        0.02,
        gt=0,
        le=1,
        description="class: a class that a smaller share f of the pictures shows comes sqrt(this / f) times as often; "
        "LVIS has 0.001 for 1,203 classes",
    )
    batch_size: int = Field(8, gt=0)
    learning_rate: float = Field(1e-3, gt=0, description="peak; warm-up, then cosine to zero")
    lr_factors: dict[Part, Strength] = Field(
        default_factory=dict,
        description="learning_rate times this for a part of the network, 0 freezes it; "
        "if not given: backbone 0.1, other tasks' branches 0 (detection with mask_boxes 1), all else 1; "
        "a tail goes with classification",
    )
    weight_decay: float = Field(0.01, ge=0, description="never on batch-norm, biases and layers called predict")
    warmup_fraction: float = Field(0.05, ge=0, le=1)
    clip_norm: float = Field(10.0, gt=0, description="largest norm of the whole gradient")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the average of the weights that the stage ends with")
    freeze_batch_norm: bool = Field(False, description="shared batch-norm keeps its statistics in this stage")
    augment: AugmentConfig = AugmentConfig()
    ewc: EwcConfig = EwcConfig()
    distillation: DistillationConfig = DistillationConfig()
    replay: ReplayConfig = ReplayConfig()
    agem: AgemConfig = AgemConfig()
    averaging: float = Field(0.0, ge=0, le=1, description="share of the weights before the stage in those after it")
    teachers: tuple[TeacherConfig, ...] = ()
    mask_boxes: Strength = Field(
        0.0,
        description="weight of boxes around the masks' objects, from which detection learns early; segmentation only",
    )
    balance: Literal["fixed", "uncertainty", "gradnorm"] = Field(
        "fixed", description="how the new task's loss and those that hold on are weighed"
    )
    surgery: Literal["none", "pcgrad", "gradvac"] = Field(
        "none", description="what happens to their gradients where they conflict"
    )

    def protected_tasks(self) -> set[Task]:
        """The earlier tasks that this stage names."""
        return set(self.ewc.strength)

    def methods(self) -> list[str]:
        """The methods of not forgetting that are on, by the names of their fields."""
        switched = {
            "ewc": any(self.ewc.strength.values()),
            "distillation": self.distillation.outputs or self.distillation.features,
            "replay": self.replay.pictures,
            "agem": self.agem.pictures,
            "averaging": self.averaging,
        }
        return [name for name, on in switched.items() if on]

    def lr_factor(self, part: Part) -> float:
        """How fast a part of the network learns in this stage, as a share of `learning_rate`; 0: not at all."""
        if part in self.lr_factors:
            return self.lr_factors[part]
        if part == "backbone":
            return 0.1
        if part == "tail":
            return self.lr_factor("classification")
        if part == "detection" and self.mask_boxes:
            return 1.0
        return 1.0 if part in {"neck", "stem", str(self.task)} else 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.augment.mosaic and self.task is not Task.DETECTION:
            raise ValueError(f"mosaic is for detection; this stage learns {self.task}")
        if self.augment.copy_paste and self.task is not Task.SEGMENTATION:
            raise ValueError(f"copy_paste is for segmentation; this stage learns {self.task}")
        if self.augment.rand_augment and self.task is not Task.CLASSIFICATION:
            raise ValueError(f"rand_augment is for classification; this stage learns {self.task}")
        if self.mask_boxes and self.task is not Task.SEGMENTATION:
            raise ValueError(f"mask_boxes is for segmentation; this stage learns {self.task}")
        return self
