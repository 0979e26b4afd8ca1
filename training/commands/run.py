"""`unihead-train run`: train a preset on your data, or go on with a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import DataOption, DeviceOption
from training.config import Config, Task, keep_one_task, keep_tasks, load_config
from training.console import choose_device, complaints, console, failures_in_one_sentence, read, warn
from training.data.datasets import DataSets
from training.data.doctor.preflight import check_data
from training.data.loaders import divide
from training.data.record import record_data, write_record
from training.data.taxonomy import Taxonomy
from training.distributed import Workers, connect
from training.environment import append_environment, describe_environment
from training.lab.report.page import write_report
from training.progress import Progress, RunProgress
from training.stages import Run
from training.stopping import Watch, parse_duration
from training.teachers.sources import leave_out_strangers


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
