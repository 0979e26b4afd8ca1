"""Everything a training run can be told, typed, once; a preset is a TOML file with these keys."""

from __future__ import annotations

import tomllib
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class ConfigError(ValueError):
    """A preset is missing, or holds an unknown key or a value out of its range."""


class Task(StrEnum):
    """What the model can be asked; the order is the order of the stages."""

    SEGMENTATION = "segmentation"
    DETECTION = "detection"
    CLASSIFICATION = "classification"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(_Frozen):
    """The network (`training.models`)."""

    backbone_weights: Literal["imagenet", "random"] = Field(
        "imagenet", description="torchvision's ImageNet weights (or a file given on the command line), or none"
    )
    batch_norm: Literal["live", "frozen"] = Field(
        "live", description="frozen: backbone batch-norm keeps its ImageNet statistics and affine from the first step"
    )
    neck_channels: int = Field(160, gt=0)
    head_channels: int = Field(160, gt=0)


class InferenceConfig(_Frozen):
    """From logits to answers; export bakes these into the graph."""

    mask_stride: int = Field(4, gt=0, description="input pixels per mask cell")
    score_floor: float = Field(0.001, ge=0, le=0.01, description="boxes that score less are dropped before NMS")
    iou_threshold: float = Field(0.5, gt=0, lt=1, description="class-wise NMS drops boxes that overlap more")
    max_detections: int = Field(100, gt=0)


class DetectionLossConfig(_Frozen):
    """The report's detection loss."""

    bce_epochs: int = Field(10, ge=0, description="epochs with plain BCE on confidence; sigmoid focal loss after them")
    focal_gamma: float = Field(1.0, ge=0)
    confidence_weight: float = Field(1.0, ge=0)
    box_weight: float = Field(1.0, ge=0)
    class_weight: float = Field(1.0, ge=0)


class StageConfig(_Frozen):
    """One stage: the task it learns, and the tasks it must not forget."""

    task: Task
    epochs: int = Field(gt=0)
    batch_size: int = Field(8, gt=0)
    learning_rate: float = Field(1e-3, gt=0, description="peak, for neck and head; warm-up, then cosine to zero")
    backbone_lr_factor: float = Field(0.1, ge=0, description="the backbone learns at learning_rate times this")
    weight_decay: float = Field(0.01, ge=0, description="never on batch-norm, biases and the prediction rows")
    warmup_fraction: float = Field(0.05, ge=0, le=1)
    clip_norm: float = Field(10.0, gt=0, description="largest norm of the whole gradient")
    flip: bool = Field(True, description="mirror pictures at random")
    ewc_lambda: dict[Task, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="strength of elastic weight consolidation per earlier task"
    )


class Config(_Frozen):
    """One training run."""

    preset: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    seed: int = Field(0, ge=0)
    input_size: int = Field(512, gt=0, multiple_of=32, description="side of the square input; in pixels")
    eval_batch_size: int = Field(8, gt=0)
    cache_mib: int = Field(4096, ge=0, description="decoded pictures kept in memory; in MiB")
    model: ModelConfig = ModelConfig()
    inference: InferenceConfig = InferenceConfig()
    detection_loss: DetectionLossConfig = DetectionLossConfig()
    stages: tuple[StageConfig, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        tasks = [stage.task for stage in self.stages]
        if not tasks or len(set(tasks)) != len(tasks):
            raise ValueError(f"stages must name each task at most once, at least one; got {[str(t) for t in tasks]}")
        for position, stage in enumerate(self.stages):
            strangers = set(stage.ewc_lambda) - set(tasks[:position])
            if strangers:
                raise ValueError(f"stage {stage.task} protects {sorted(strangers)}, which no earlier stage has learned")
        if self.input_size % self.inference.mask_stride:
            raise ValueError(f"mask_stride {self.inference.mask_stride} must divide input_size {self.input_size}")
        return self


def load_config(source: str | Path, **overrides: Any) -> Config:  # noqa: ANN401 - any field of Config
    """Load a shipped preset by name ("seed"), or a TOML file by path; `overrides` replace top-level keys.

    Raises:
        ConfigError: no such preset or file, not TOML, an unknown key, or a value out of its range.
    """
    presets = resources.files("training") / "presets"
    path = presets / f"{source}.toml" if isinstance(source, str) and not source.endswith(".toml") else Path(source)
    if not path.is_file():
        known = sorted(entry.name.removesuffix(".toml") for entry in presets.iterdir() if entry.name.endswith(".toml"))
        raise ConfigError(f"{path} does not exist; presets are {', '.join(known)}, or give the path of a TOML file")
    try:
        return Config.model_validate(tomllib.loads(path.read_text(encoding="utf-8")) | overrides)
    except ValidationError as error:
        faults = (f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors())
        raise ConfigError(f"{path}: {'; '.join(faults)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
