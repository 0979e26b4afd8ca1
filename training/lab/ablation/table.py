"""A table of experiments: a base config, and rows that each change one thing of it."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.config import Config, Task
from training.options.base import Frozen, describe_faults

SHIPPED_TABLE = Path(__file__).with_name("table.toml")
BASE = "base"
_LEAST_HOLDOUT = 0.1


class AblationError(ValueError):
    """A table cannot be used, or the results of one."""


class Direction(StrEnum):
    """What a row asks about; the order is that of the report."""

    RESOLUTION = "resolution"
    SCALES = "scales"
    DECODING = "decoding"
    TAPS = "taps"
    HEADS = "heads"
    ROUTING = "routing"
    FORGETTING = "forgetting"
    BALANCE = "balance"
    DISTILLATION = "distillation"
    DATA = "data"
    PROTOCOL = "protocol"


class _Settings(BaseModel):
    """Keys of `Config`, which checks them, but stages are named by their task."""

    model_config = ConfigDict(extra="allow")
    stages: dict[Task, dict[str, Any]] = Field(default_factory=dict)


class _Row(Frozen):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    direction: Direction
    sentence: str
    overrides: _Settings
    needs: tuple[str, ...] = ()


class _Table(Frozen):
    base: _Settings
    rows: tuple[_Row, ...]


@dataclass(frozen=True, slots=True)
class Experiment:
    """One row of a table.

    Attributes:
        name: also that of its folder while it is trained.
        direction: a `Direction`, or `BASE`.
        sentence: what is different from the base.
        config: of the run, but for the seed.
        needs: modules of optional packages, without which the row is left out.
    """

    name: str
    direction: str
    sentence: str
    config: Config
    needs: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the config without its seed."""
        return compute_digest(self.config.model_dump(mode="json", exclude={"seed"}))


def compute_digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of values that JSON can say; the order of keys does not count."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def deep_merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay changes over a base: tables key by key, at any depth; anything else, lists too, takes the old one's place."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = deep_merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def load_table(path: Path) -> tuple[Experiment, ...]:
    """Read a table: the base, then its rows in their order.

    Raises:
        AblationError: no such file, not TOML, an unknown key or a value out of its range; too little held out, a task
            without a stage, a name that comes twice, or a row that changes nothing.
    """
    try:
        table = _Table.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise AblationError(f"{path}: {describe_faults(error)}") from error
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AblationError(f"{path}: {error}") from error
    base = table.base.model_dump()
    experiments = [Experiment(BASE, BASE, "What every row is compared with", _build_config(base, path, BASE))]
    for row in table.rows:
        config = _build_config(deep_merge(base, row.overrides.model_dump()), path, row.name)
        experiments.append(Experiment(row.name, row.direction, row.sentence, config, row.needs))
    _check(experiments, path)
    return tuple(experiments)


def _build_config(values: Mapping[str, Any], path: Path, name: str) -> Config:
    stages = [{"task": task, **stage} for task, stage in values["stages"].items()]
    try:
        return Config.model_validate({**values, "stages": stages})
    except ValidationError as error:
        raise AblationError(f"{path}, {name}: {describe_faults(error)}") from error


def _check(experiments: Sequence[Experiment], path: Path) -> None:
    base = experiments[0].config
    if {stage.task for stage in base.stages} != set(Task):
        raise AblationError(f"{path}: the base learns {len(base.stages)} tasks; wanted a stage for each of {len(Task)}")
    if base.holdout < _LEAST_HOLDOUT:
        raise AblationError(f"{path}: the base has a holdout of {base.holdout}; wanted {_LEAST_HOLDOUT} or more")
    names: set[str] = set()
    known: dict[str, str] = {}
    for one in experiments:
        if one.name in names:
            raise AblationError(f"{path}: two rows are called {one.name!r}")
        if one.config.holdout != base.holdout:
            raise AblationError(f"{path}, {one.name}: rows are measured on the pictures that the base is measured on")
        if one.digest in known:
            raise AblationError(f"{path}, {one.name}: the same config as {known[one.digest]!r}")
        names.add(one.name)
        known[one.digest] = one.name
