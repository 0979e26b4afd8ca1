"""`unihead-train`: train a preset on your data, report the run, measure and compare what came of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from training.config import Config, Task, keep_one_task, keep_tasks, load_config
from training.console import choose_device, complaints, console, failures_in_one_sentence, read, say, warn
from training.data.datasets import DataSets, SplitName
from training.data.doctor.preflight import check_data
from training.data.loaders import divide
from training.data.record import record_data, write_record
from training.data.taxonomy import Taxonomy
from training.distributed import Workers, connect
from training.environment import append_environment, describe_environment, describe_machine
from training.inference import choose_tasks, open_checkpoint, open_model
from training.lab.ablation.records import RECORDS_NAME, read_records
from training.lab.ablation.report import write_report as write_ablation_report
from training.lab.ablation.run import Plan, RowTrainer, run_table
from training.lab.ablation.shelf import Shelf
from training.lab.ablation.table import SHIPPED_TABLE, load_table
from training.lab.report.page import write_report
from training.lab.summary import format_summary, load_run, summarise
from training.metrics.bootstrap import bootstrap_interval
from training.metrics.evaluation import PRIMARY_METRIC, measure_task
from training.progress import Progress, RunProgress
from training.stages import Run
from training.stopping import Watch, parse_duration
from training.teachers.sources import leave_out_strangers

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False)
DataOption = Annotated[
    Path,
    typer.Option(envvar="UNIHEAD_DATA", metavar="FILE|FOLDER", help="Data file, or folder; see `unihead-data show`."),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda; auto takes CUDA when there is one.")]


@app.callback()
def _root() -> None:
    """Train a preset on your data, report the run, measure and compare what came of it."""


@app.command()
def run(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder of this run: checkpoint, metrics, report.")],
    preset: Annotated[
        str | None,
        typer.Option(help="A shipped preset (default, seed, tiny) or the path of a TOML file; default if not given."),
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
    only: Annotated[
        Task | None, typer.Option(help="Train this task's stage alone: the baseline that forgetting is measured by.")
    ] = None,
    measure_every: Annotated[
        int, typer.Option(min=0, metavar="EPOCHS", help="Measure within a stage too, for curves to look at; 0: not.")
    ] = 10,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out was stopped.")] = False,
    stop_after: Annotated[str, typer.Option(metavar="TIME", help="Stop then: 90s, 150m, 2h, 1h30m; 0: not.")] = "0",
    save_every: Annotated[str, typer.Option(metavar="TIME", help="Save within epochs so often; 0: not.")] = "10m",
    accept: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="Train in spite of this error, as `unihead-data doctor` names it."),
    ] = None,
) -> None:
    """Examine the data, train the stages whose tasks it has, measure after each, write a report.

    --stop-after, SIGTERM and the first Ctrl-C stop it at the next step, for --resume; it exits with 75, 143 or 130.
    """
    watch = _set_watch(stop_after, save_every)
    if resume and (preset is not None or seed is not None or only is not None):
        raise typer.BadParameter("the run in --out keeps its own preset, seed and tasks", param_hint="--resume")
    chosen = choose_device(device)
    with failures_in_one_sentence():
        workers = connect(chosen)
        chosen = workers.choose_device(chosen)
        complaints.quiet = not workers.is_main  # all processes read the data, and find the same
        examination = check_data(data, accept or (), warn)
        sets = read(data)
        config = None if resume else _choose_config(preset, seed, only, sets.taxonomy)
        complaints.quiet = False
        if config is None:
            training = Run.resume(out, chosen, workers=workers)
        else:
            training = Run.start(config, out, chosen, taxonomy=sets.taxonomy, weights=backbone_weights, workers=workers)
        with watch, _show_progress(training.checkpoint.parsed_config(), sets, out, workers) as progress:
            if workers.is_main:
                write_record(out, record_data(examination, sets))
                append_environment(out, describe_environment(chosen, processes=workers.world_size))
            training.finish(sets, progress, measure_every=measure_every, watch=watch)
        if workers.is_main:
            written = write_report(out, sets)
            console.print(f"report: {written}\ncheckpoint: {out / 'checkpoint.pt'}", highlight=False)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run; one that is not finished will do.")],
    data: Annotated[
        Path | None, typer.Option(envvar="UNIHEAD_DATA", help="As for `run`; without it there are no pictures.")
    ] = None,
) -> None:
    """Draw the report of a run again, from what it left in its folder."""
    with failures_in_one_sentence():
        written = write_report(folder, None if data is None else read(data))
    console.print(f"report: {written}", highlight=False)


@app.command()
def evaluate(
    data: DataOption,
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
    judged by has an interval: what it might have been with other pictures of the same kind.
    """
    if (checkpoint is None) == (model is None):
        raise typer.BadParameter("wanted one of --checkpoint and --model", param_hint="--checkpoint")
    if model and device == "cuda":
        raise typer.BadParameter("an ONNX file is measured as it is served, on the CPU", param_hint="--device")
    chosen = choose_device(device)
    with failures_in_one_sentence():
        sets = read(data)
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


@app.command()
def ablate(
    data: Annotated[Path | None, typer.Option(envvar="UNIHEAD_DATA", help="As for `run`.")] = None,
    table: Annotated[Path, typer.Option(help="TOML file with a base and rows.", show_default=False)] = SHIPPED_TABLE,
    out: Annotated[Path, typer.Option(help="Folder of results and report.")] = Path("docs"),
    work: Annotated[Path, typer.Option(help="Folder of the runs while they are trained.")] = Path("runs/ablation"),
    seeds: Annotated[
        list[int] | None, typer.Option(min=0, help="Give it once per seed; 0 if not given. The first is run first.")
    ] = None,
    best: Annotated[
        int | None, typer.Option(min=1, metavar="ROWS", help="Further seeds only for so many of the best rows.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folders of the runs.")] = False,
    report_only: Annotated[bool, typer.Option("--report-only", help="Train nothing, write the report.")] = False,
    backbone_weights: Annotated[
        Path | None, typer.Option(envvar="UNIHEAD_BACKBONE_WEIGHTS", help="As for `run`.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Train each row of a table of experiments that has no result yet, and write a report of all.

    Results are measured on training pictures that are held out. The best rows are those with the highest mean over the
    tasks of their figure at the end, as a share of the base's.
    """
    if data is None and not report_only:
        raise typer.BadParameter("wanted the folder of the data, to train on", param_hint="--data")
    chosen = choose_device(device)
    with failures_in_one_sentence():
        experiments = load_table(table)
        if data is not None and not report_only:
            sets = read(data)
            machine = describe_machine(chosen)
            plan = Plan(experiments, out / RECORDS_NAME, seeds or [0], best=best, work=work, keep=keep, machine=machine)
            shelf = Shelf(work / "shared", experiments, plan.seeds)
            run_table(plan, RowTrainer(sets, chosen, backbone_weights, console, shelf), say)
        written = write_ablation_report(experiments, read_records(out / RECORDS_NAME), out)
    console.print(f"report: {written}", highlight=False)


def _set_watch(stop_after: str, save_every: str) -> Watch:
    try:
        return Watch(stop_after_s=parse_duration(stop_after), save_every_s=parse_duration(save_every))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _choose_config(preset: str | None, seed: int | None, only: Task | None, taxonomy: Taxonomy) -> Config:
    config = load_config(preset or "default", **({} if seed is None else {"seed": seed}))
    config = config if only is None else keep_one_task(config, only)
    if absent := [stage.task for stage in config.stages if stage.task not in taxonomy.tasks]:
        config = keep_tasks(config, taxonomy.tasks)
        warn(f"the data has nothing of {' and '.join(absent)}, so that is not learned")
    config, sentences = leave_out_strangers(config, taxonomy)
    for sentence in sentences:
        warn(sentence)
    return config


def _show_progress(config: Config, sets: DataSets, out: Path, workers: Workers) -> Progress:
    if not workers.is_main:
        return Progress()
    learned, _ = divide(sets, config)
    pictures = {stage.task: len(learned.split(stage.task).train) for stage in config.stages}
    return RunProgress(config, pictures, out, console)


def main() -> None:
    """Entry point of `unihead-train`."""
    app()
