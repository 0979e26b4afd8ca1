"""`unihead-train`: train a preset on your data, report the run, measure and compare what came of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from training.commands.ablate import ablate
from training.commands.chain import chain
from training.commands.options import DataOption, DeviceOption, RootOption
from training.commands.run import run
from training.commands.sweep import sweep
from training.commands.weights import weights
from training.console import choose_device, console, failures_in_one_sentence, read, warn
from training.data.datasets import SplitName
from training.inference import choose_tasks, open_checkpoint, open_model
from training.lab.report.page import write_report
from training.lab.summary import format_summary, load_run, summarise
from training.metrics.bootstrap import bootstrap_interval
from training.metrics.detection import AveragePrecision
from training.metrics.evaluation import PRIMARY_METRIC, measure_task
from training.metrics.operating import measure_at

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False)


@app.callback()
def _root() -> None:
    """Train a preset on your data, report the run, measure and compare what came of it."""


app.command()(run)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run; one that is not finished will do.")],
    data: Annotated[
        Path | None, typer.Option(envvar="UNIHEAD_DATA", help="As for `run`; without it there are no pictures.")
    ] = None,
    root: RootOption = None,
) -> None:
    """Draw the report of a run again, from what it left in its folder."""
    with failures_in_one_sentence():
        written = write_report(folder, None if data is None else read(data, root))
    console.print(f"report: {written}", highlight=False)


@app.command()
def evaluate(
    data: DataOption,
    root: RootOption = None,
    checkpoint: Annotated[Path | None, typer.Option(help="checkpoint.pt of a run.")] = None,
    model: Annotated[Path | None, typer.Option(help="An exported ONNX file, instead of a checkpoint.")] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, metavar="DRAWS", help="Samples of pictures for 95 % intervals, say 1000; 0 for none.")
    ] = 0,
    split: Annotated[SplitName, typer.Option(help="The pictures to measure on.")] = "val",
    device: DeviceOption = "auto",
) -> None:
    """Print all metrics of a checkpoint or an ONNX file, over one split of the data, as JSON.

    The tasks are measured that it has learned and the data has pictures of. With --bootstrap the metric that a task is
    judged by has an interval: what it might have been with other pictures of the same kind. Boxes are described at the
    model's own threshold too: precision, recall, F1, and how often one object is shown twice.
    """
    if (checkpoint is None) == (model is None):
        raise typer.BadParameter("wanted one of --checkpoint and --model", param_hint="--checkpoint")
    if model and device == "cuda":
        raise typer.BadParameter("an ONNX file is measured as it is served, on the CPU", param_hint="--device")
    chosen = choose_device(device)
    with failures_in_one_sentence():
        sets = read(data, root)
        if model is not None:
            engine, tasks, batch_size = open_model(model)
        elif checkpoint is not None:
            engine, tasks, batch_size = open_checkpoint(checkpoint, chosen)
        metrics: dict[str, dict[str, object]] = {}
        tasks = choose_tasks(engine, tasks, sets, owner=str(model or checkpoint))
        pictures = sets.pictures(tasks, split)
        if absent := [task for task in tasks if task not in pictures]:
            warn(f"the data has no {split} of {' and '.join(absent)}, so that is not measured")
        for task, samples in pictures.items():
            measured = measure_task(engine, task, samples, batch_size=batch_size)
            metrics[str(task)] = dict(measured.metrics)
            if isinstance(measured.counted, AveragePrecision):
                point = measure_at(measured.counted.judge_boxes(), engine.contract.score_threshold)
                metrics[str(task)]["at_default_threshold"] = asdict(point)
            if bootstrap:
                interval = bootstrap_interval(measured.counted, rng=np.random.default_rng(0), draws=bootstrap)
                metrics[str(task)][f"{PRIMARY_METRIC[task]}_interval_95"] = [interval.low, interval.high]
    print(json.dumps(metrics, indent=2))


@app.command()
def summary(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs of one preset with different seeds.")],
    baseline: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a finished run that learned one task alone; give it once per run."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a Markdown table.")] = False,
) -> None:
    """Print mean and standard deviation over several runs, and what each task lost since its own stage."""
    with failures_in_one_sentence():
        found = summarise([load_run(folder) for folder in runs], [load_run(folder) for folder in baseline or ()])
    print(json.dumps(asdict(found), indent=2) if as_json else format_summary(found))


app.command()(weights)
app.command()(chain)
app.command()(ablate)
app.command()(sweep)


def main() -> None:
    """Entry point of `unihead-train`."""
    app()
