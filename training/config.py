"""Everything a training run can be told, typed, once; a preset is a TOML file with these keys."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from training.options.base import Frozen, Task, describe_faults
from training.options.model import (
    DetectionLossConfig,
    InferenceConfig,
    ModelConfig,
    PointDetectionConfig,
    SegmentationLossConfig,
)
from training.options.polish import PolishConfig
from training.options.stage import StageConfig

__all__ = [
    "DEFAULT_PRESET",
    "Config",
    "ConfigError",
    "DetectionLossConfig",
    "InferenceConfig",
    "ModelConfig",
    "SegmentationLossConfig",
    "StageConfig",
    "Task",
    "describe_faults",
]


DEFAULT_PRESET: Final = "default"  # what is trained where nothing else is asked for


class ConfigError(ValueError):
    """A preset is missing, or holds an unknown key or a value out of its range."""


class Config(Frozen):
    """One training run."""

    preset: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    seed: int = Field(0, ge=0)
    input_size: int = Field(512, gt=0, multiple_of=32, description="side of the square input; in pixels")
    holdout: float = Field(
        0.0, ge=0, lt=0.5, description="share of the training pictures to measure on, in place of the validation split"
    )
    eval_batch_size: int = Field(8, gt=0)
    cache_mib: int = Field(4096, ge=0, description="decoded pictures of all tasks kept in memory; in MiB")
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto",
        description="threads that read and change pictures ahead of the step; auto: as many as there are CPUs that the "
        "network leaves, 1 to 8; 0: none. What is learned is the same, to the bit",
    )
    model: ModelConfig = ModelConfig()
    inference: InferenceConfig = InferenceConfig()
    segmentation_loss: SegmentationLossConfig = SegmentationLossConfig()
    detection_loss: DetectionLossConfig = DetectionLossConfig()
    point_loss: PointDetectionConfig = PointDetectionConfig()
    stages: tuple[StageConfig, ...]
    polish: PolishConfig = PolishConfig()

    @property
    def num_stages(self) -> int:
        """How many stages a finished run has done; the polish is one more."""
        return len(self.stages) + bool(self.polish.epochs)

    @model_validator(mode="after")
    def _check(self) -> Self:
        tasks = [stage.task for stage in self.stages]
        if not tasks or len(set(tasks)) != len(tasks):
            raise ValueError(f"stages must name each task at most once, at least one; got {[str(t) for t in tasks]}")
        if self.polish.epochs and len(tasks) == 1:
            raise ValueError(f"polish trains tasks together; there is only {tasks[0]}")
        for position, stage in enumerate(self.stages):
            strangers = stage.protected_tasks() - set(tasks[:position])
            if strangers:
                raise ValueError(f"stage {stage.task} protects {sorted(strangers)}, which no earlier stage has learned")
            if unknown := set(stage.lr_factors) - self.model.part_names:
                raise ValueError(
                    f"stage {stage.task} gives lr_factors for {sorted(unknown)}; "
                    f"this network has {sorted(self.model.part_names)}"
                )
        if methods := self.stages[0].methods():
            raise ValueError(f"{methods} hold on to what earlier stages have learned; {tasks[0]} is the first")
        if len({stage.ewc.online for stage in self.stages if stage.ewc.strength}) > 1:
            raise ValueError("ewc is online in all stages that use it, or in none: anchors are kept one way")
        if self.input_size % self.inference.mask_stride:
            raise ValueError(f"mask_stride {self.inference.mask_stride} must divide input_size {self.input_size}")
        return self


def keep_one_task(config: Config, task: Task) -> Config:
    """The stage of one task as a run of its own, from ImageNet weights: the baseline that forgetting is measured by.

    Raises:
        ConfigError: no stage learns that task.
    """
    return keep_tasks(config, {task})


def keep_tasks(config: Config, tasks: Collection[Task]) -> Config:
    """Leave out the stages of all other tasks, and what the remaining ones do for them or against forgetting them.

    Raises:
        ConfigError: no stage learns one of these tasks.
    """
    kept = [stage for stage in config.stages if stage.task in tasks]
    if not kept:
        raise ConfigError(
            f"preset {config.preset} has no stage for {', '.join(task for task in Task if task in tasks)}"
        )
    learned = [stage.task for stage in kept]
    stages = tuple(_keep_tasks_of_stage(stage, learned, is_first=not place) for place, stage in enumerate(kept))
    changes: dict[str, Any] = {"stages": stages, "preset": f"{config.preset}-{'-'.join(learned)}"}
    if len(stages) == 1:
        changes["polish"] = PolishConfig()
    return config.model_copy(update=changes)


def _keep_tasks_of_stage(stage: StageConfig, learned: Collection[Task], *, is_first: bool) -> StageConfig:
    strength = {task: value for task, value in stage.ewc.strength.items() if task in learned}
    changes: dict[str, Any] = {
        "ewc": stage.ewc.model_copy(update={"strength": strength}),
        "teachers": tuple(one for one in stage.teachers if (one.task or stage.task) in learned),
    }
    if Task.DETECTION not in learned:
        changes["mask_boxes"] = 0.0
    if is_first:
        nothing = StageConfig(task=stage.task, epochs=1)  # no method of not forgetting: there is nothing to protect
        changes |= {name: getattr(nothing, name) for name in {"ewc", *stage.methods()}}
    return stage.model_copy(update=changes)


def load_config(source: str | Path, *, settings: Sequence[str] = (), **overrides: Any) -> Config:  # noqa: ANN401 - any field of Config
    """Load a shipped preset by name ("seed"), or a TOML file by path.

    Args:
        source: the name or the path.
        settings: "KEY=VALUE" each, that change one value: see `change_values`.
        overrides: replace top-level keys.

    Raises:
        ConfigError: no such preset or file, not TOML, an unknown key, or a value out of its range.
    """
    presets = resources.files("training") / "presets"
    path = presets / f"{source}.toml" if isinstance(source, str) and not source.endswith(".toml") else Path(source)
    if not path.is_file():
        known = sorted(entry.name.removesuffix(".toml") for entry in presets.iterdir() if entry.name.endswith(".toml"))
        raise ConfigError(f"{path} does not exist; presets are {', '.join(known)}, or give the path of a TOML file")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8")) | overrides
        for setting in settings:
            change_values(values, setting)
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe_faults(error)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def change_values(values: dict[str, Any], setting: str) -> None:
    """Change one value of a preset.

    Args:
        values: as the TOML has them; changed in place.
        setting: "KEY=VALUE". The key's parts are joined by dots and begin with a task for what is its stage's, as in
            "detection.epochs=20", or are those of the file, as in "model.reg_max=7". The value is one of TOML;
            what is none, such as a bare word, is a string.

    Raises:
        ConfigError: it has no such form, or leads through what is no table.
    """
    key, equals, text = setting.partition("=")
    first, *rest = (part.strip() for part in key.split("."))
    if not equals or not all((first, *rest)):
        raise ConfigError(f"{setting!r} is no setting; wanted KEY=VALUE such as detection.epochs=20")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    place: Any = values
    if first in tuple(Task):
        stages = [stage for stage in values.get("stages", ()) if stage.get("task") == first]
        if not stages or not rest:
            raise ConfigError(f"{setting!r}: wanted {first}.KEY=VALUE, of a preset that has this stage")
        place, (first, *rest) = stages[0], rest
    for part in rest:
        place = place.setdefault(first, {})
        if not isinstance(place, dict):
            raise ConfigError(f"{setting!r}: {first} is no table")
        first = part
    place[first] = value
