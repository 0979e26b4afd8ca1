"""What the commands of `unihead-train` have in common: where they write, how they fail, which device, which data."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import typer
from rich.console import Console

from service.errors import ContractError
from training.checkpoint import CheckpointError
from training.config import ConfigError
from training.data.datasets import DataError, DataSets
from training.data.doctor.layouts import LayoutError
from training.data.doctor.preflight import UnfitDataError
from training.data.record import RecordError
from training.data.sources import read_data
from training.data.taxonomy import TaxonomyError
from training.distributed import DistributedError
from training.lab.ablation.table import AblationError
from training.lab.summary import SummaryError
from training.learner import TrainingDivergedError
from training.metrics.calibration import UncalibratedError
from training.metrics.details import DetailsError
from training.models.backbone import WeightsError
from training.starting.checks import ResourceError
from training.stopping import StoppedError
from training.teachers.teacher import TeacherError

console = Console()
complaints = Console(stderr=True)
# markup=False: a path or a message may hold square brackets.
say, warn, complain = (
    partial(where.print, style=style, highlight=False, markup=False, soft_wrap=True)
    for where, style in ((console, None), (complaints, "yellow"), (complaints, "bold red"))
)
# What the user or the machine can bring about, and one sentence says.
FAILURES = (
    AblationError,
    CheckpointError,
    ConfigError,
    ContractError,
    DataError,
    DetailsError,
    DistributedError,
    LayoutError,
    RecordError,
    ResourceError,
    StoppedError,
    SummaryError,
    TaxonomyError,
    TeacherError,
    TrainingDivergedError,
    UncalibratedError,
    UnfitDataError,
    WeightsError,
    OSError,
)


@contextmanager
def failures_in_one_sentence() -> Iterator[None]:
    """End the command with a sentence, and exit code 1 or that of a stop, where it fails as it may."""
    try:
        yield
    except FAILURES as error:
        complain(f"unihead-train: {error}")
        raise typer.Exit(error.exit_code if isinstance(error, StoppedError) else 1) from error


def choose_device(name: str) -> torch.device:
    """Read the option --device."""
    if name not in {"auto", "cpu", "cuda"}:
        raise typer.BadParameter(f"{name!r} is none of auto, cpu and cuda", param_hint="--device")
    if name == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("torch finds no CUDA device here; take auto or cpu", param_hint="--device")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def read(data: Path, root: Path | None = None) -> DataSets:
    """Read a data file, whose paths may count from `root`, or a folder, and tell what was mended.

    Raises:
        DataError: see `read_data`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sets = read_data(data, root=root)
    for warning in caught:
        warn(f"warning: {warning.message}")
    return sets
