"""`unihead-train`: train a preset on the three mini sets, and measure a checkpoint."""

from __future__ import annotations

import json
import warnings
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from training.checkpoint import CheckpointError, load_checkpoint
from training.config import ConfigError, Task, load_config
from training.data.datasets import DataError, MiniSets, read_mini_sets
from training.data.doctor.layouts import LayoutError
from training.data.loaders import split_of
from training.engine import TrainingDivergedError
from training.evaluation import evaluate_task
from training.inference import build_engine, restore_model
from training.models.backbone import WeightsError
from training.preflight import UnfitDataError, check_data
from training.progress import RunProgress
from training.report import write_report
from training.stages import Run

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False)
console = Console()
complaints = Console(stderr=True)

DataOption = Annotated[
    Path,
    typer.Option(envvar="UNIHEAD_DATA", help="Folder that holds mini_voc_seg, mini_coco_det and imagenette_160."),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda; auto takes CUDA when there is one.")]


@app.callback()
def _root() -> None:
    """Train a preset on the three mini sets, and measure a checkpoint."""


@app.command()
def run(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder of this run: checkpoint, metrics, report.")],
    preset: Annotated[
        str | None, typer.Option(help="A shipped preset (seed, tiny) or the path of a TOML file; seed if not given.")
    ] = None,
    backbone_weights: Annotated[
        Path | None,
        typer.Option(
            envvar="UNIHEAD_BACKBONE_WEIGHTS",
            help="State dict with the ImageNet features; without it torchvision downloads them.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    seed: Annotated[int | None, typer.Option(help="Instead of the preset's seed.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out was stopped.")] = False,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE", help="Train in spite of this error in the data, as `unihead-data doctor` names it."
        ),
    ] = None,
) -> None:
    """Examine the data, train the three stages, measure after each, write a report."""
    if resume and (preset is not None or seed is not None):
        raise typer.BadParameter("the run in --out keeps its own preset and seed", param_hint="--resume")
    chosen = _choose_device(device)
    try:
        check_data(
            data, accept or (), partial(complaints.print, style="yellow", highlight=False, markup=False, soft_wrap=True)
        )
    except (LayoutError, UnfitDataError) as error:
        raise _failure(error) from error
    sets = _read(data)
    try:
        if resume:
            training = Run.resume(out, chosen)
        else:
            overrides = {} if seed is None else {"seed": seed}
            training = Run.start(load_config(preset or "seed", **overrides), out, chosen, weights=backbone_weights)
        config = training.checkpoint.parsed_config()
        pictures = {task: len(split_of(sets, task).train) for task in Task}
        with RunProgress(config, pictures, out, console) as progress:
            training.finish(sets, progress)
    except (CheckpointError, ConfigError, DataError, WeightsError, TrainingDivergedError, OSError) as error:
        raise _failure(error) from error
    model = restore_model(training.checkpoint).to(chosen)
    report = write_report(
        out,
        config=config,
        history=training.checkpoint.history,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        device=describe_device(chosen),
        git_commit=training.checkpoint.git_commit,
        engine=build_engine(model, config, chosen, git_commit=training.checkpoint.git_commit),
        sets=sets,
    )
    console.print(f"report: {report}\ncheckpoint: {out / 'checkpoint.pt'}", highlight=False)


@app.command()
def evaluate(
    data: DataOption,
    checkpoint: Annotated[Path, typer.Option(help="checkpoint.pt of a run.")],
    device: DeviceOption = "auto",
) -> None:
    """Print all metrics of the tasks that a checkpoint has learned, over the validation splits, as JSON."""
    chosen = _choose_device(device)
    sets = _read(data)
    try:
        loaded = load_checkpoint(checkpoint)
        config = loaded.parsed_config()
        engine = build_engine(restore_model(loaded).to(chosen), config, chosen, git_commit=loaded.git_commit)
        metrics = {
            str(task): evaluate_task(engine, task, split_of(sets, task).val, batch_size=config.eval_batch_size)
            for task in [stage.task for stage in config.stages[: loaded.stage]]
        }
    except (CheckpointError, DataError) as error:
        raise _failure(error) from error
    print(json.dumps(metrics, indent=2))


def describe_device(device: torch.device) -> str:
    """Name the device a figure was measured on, for reports."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def _choose_device(name: str) -> torch.device:
    if name not in {"auto", "cpu", "cuda"}:
        raise typer.BadParameter(f"{name!r} is none of auto, cpu and cuda", param_hint="--device")
    if name == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("torch finds no CUDA device here; take auto or cpu", param_hint="--device")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _read(data: Path) -> MiniSets:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            sets = read_mini_sets(data)
        except DataError as error:
            raise _failure(error) from error
    for warning in caught:
        complaints.print(f"warning: {warning.message}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    return sets


def _failure(error: Exception) -> typer.Exit:
    # markup=False: a path or a message may hold square brackets.
    complaints.print(f"unihead-train: {error}", style="bold red", highlight=False, markup=False, soft_wrap=True)
    return typer.Exit(1)


def main() -> None:
    """Entry point of `unihead-train`."""
    app()
