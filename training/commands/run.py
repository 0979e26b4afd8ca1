"""`unihead-train run`: train a preset on your data, or go on with a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

from training.checkpoint import Checkpoint
from training.commands.options import DataOption, DeviceOption, RootOption
from training.config import DEFAULT_PRESET, Config, Task, keep_one_task, keep_tasks, load_config
from training.console import choose_device, complaints, console, failures_in_one_sentence, read, warn
from training.data.datasets import DataSets
from training.data.doctor.preflight import check_data
from training.data.loaders import divide
from training.data.record import record_data, write_record
from training.distributed import Workers, connect
from training.environment import Environment, append_environment, describe_environment, find_memory_limit_bytes
from training.lab.report.page import write_report
from training.progress import Progress, RunProgress
from training.stages import Run
from training.starting.beginning import begin
from training.starting.checks import require_disk, require_memory, try_teachers
from training.starting.origin import open_origin
from training.starting.resuming import read_moves
from training.starting.segment import WHOLE, Segment, choose_segment
from training.starting.takeover import Takeover
from training.stopping import Watch, parse_duration
from training.teachers.sources import leave_out_strangers


def run(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder of this run: checkpoint, metrics, report.")],
    root: RootOption = None,
    preset: Annotated[
        str | None,
        typer.Option(help="A shipped preset (default, seed, tiny) or the path of a TOML file; default if not given."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one value of the preset: detection.epochs=20 for a stage's, model.reg_max=7 for another.",
        ),
    ] = None,
    backbone_weights: Annotated[
        Path | None,
        typer.Option(
            envvar="UNIHEAD_BACKBONE_WEIGHTS",
            help="State dict with the ImageNet features; without it torchvision downloads them.",
        ),
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|RUN", help="Start from what fits of these weights: of a checkpoint, or any state dict."
        ),
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE", help="Train this stage alone; --init-from has learned those before it. A task, or polish."
        ),
    ] = None,
    through: Annotated[
        str | None, typer.Option(metavar="STAGE", help="End after this stage, in place of --stage's or the last one.")
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
    teacher: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="With --resume: where a teacher lies now; it has to be the same file."),
    ] = None,
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
    if resume and any(value is not None for value in (preset, set_, seed, only, init_from, stage, through)):
        raise typer.BadParameter(
            "the run in --out keeps its own preset, seed, tasks and weights", param_hint="--resume"
        )
    if teacher and not resume:
        raise typer.BadParameter("a preset names the teachers of a run that begins", param_hint="--teacher")
    if only and (stage or through):
        raise typer.BadParameter("a run of one task has one stage", param_hint="--only")
    chosen = choose_device(device)
    with failures_in_one_sentence():
        workers = connect(chosen)
        chosen = workers.choose_device(chosen)
        complaints.quiet = not workers.is_main  # all processes read the data, and find the same
        examination = check_data(data, accept or (), warn, root=root)
        sets = read(data, root)
        if resume:
            training = Run.resume(out, chosen, moved=read_moves(teacher or []), workers=workers)
            _check(training.checkpoint, sets, chosen, out, goes_on=True)
        else:
            origin = None if init_from is None else open_origin(init_from)
            config, segment = _choose_config(preset, set_ or (), seed, only, sets, stage, through)
            beginning = begin(config, sets.taxonomy, weights=backbone_weights, origin=origin, segment=segment)
            _check(beginning.checkpoint, sets, chosen, out, goes_on=False)
            if beginning.takeover is not None and workers.is_main:
                _show_takeover(beginning.takeover, init_from)
            training = Run.launch(beginning, out, chosen, workers=workers)
        complaints.quiet = False
        with watch, _show_progress(training.checkpoint, sets, out, workers) as progress:
            if workers.is_main:
                write_record(out, record_data(examination, sets))
                append_environment(out, _describe(training.checkpoint, chosen, workers))
            training.finish(sets, progress, measure_every=measure_every, watch=watch)
        if workers.is_main:
            written = write_report(out, sets)
            console.print(f"report: {written}\ncheckpoint: {out / 'checkpoint.pt'}", highlight=False)


def _check(checkpoint: Checkpoint, sets: DataSets, device: torch.device, out: Path, *, goes_on: bool) -> None:
    """See that what is left of a run has all that it needs, and take note of its teachers."""
    config = checkpoint.parsed_config()
    known = checkpoint.teachers if goes_on else None
    tried = try_teachers(config, sets, device, begins=checkpoint.stage, ends=checkpoint.end, known=known)
    checkpoint.teachers |= tried.sha256
    require_disk(out, checkpoint)
    require_memory(checkpoint, sets, tried, limit_bytes=find_memory_limit_bytes())


def _show_takeover(takeover: Takeover, path: Path | None) -> None:
    table = Table("part", "tensors taken", "begun anew", "of the file not used", title=f"weights of {path}")
    for row in takeover.rows_of_table():
        table.add_row(*row)
    console.print(table)


def _describe(checkpoint: Checkpoint, device: torch.device, workers: Workers) -> Environment:
    found = describe_environment(device, processes=workers.world_size)
    if checkpoint.origin_sha256:
        found["started from weights of SHA-256"] = checkpoint.origin_sha256
    return found


def _set_watch(stop_after: str, save_every: str) -> Watch:
    try:
        return Watch(stop_after_s=parse_duration(stop_after), save_every_s=parse_duration(save_every))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _choose_config(
    preset: str | None,
    settings: Sequence[str],
    seed: int | None,
    only: Task | None,
    sets: DataSets,
    stage: str | None,
    through: str | None,
) -> tuple[Config, Segment]:
    config = load_config(preset or DEFAULT_PRESET, settings=settings, **({} if seed is None else {"seed": seed}))
    config = config if only is None else keep_one_task(config, only)
    segment = choose_segment(config, stage, through)
    taxonomy = sets.taxonomy
    for one in config.stages[: segment.ends if segment != WHOLE else 0]:
        sets.split(one.task)  # a segment is measured at all that is learned by its end
    if absent := [one.task for one in config.stages if one.task not in taxonomy.tasks]:
        config = keep_tasks(config, taxonomy.tasks)
        warn(f"the data has nothing of {' and '.join(absent)}, so that is not learned")
    config, sentences = leave_out_strangers(config, taxonomy)
    for sentence in sentences:
        warn(sentence)
    return config, segment


def _show_progress(checkpoint: Checkpoint, sets: DataSets, out: Path, workers: Workers) -> Progress:
    if not workers.is_main:
        return Progress()
    config = checkpoint.parsed_config()
    learned, _ = divide(sets, config)
    pictures = {stage.task: len(learned.split(stage.task).train) for stage in config.stages}
    return RunProgress(config, pictures, out, console, stages=checkpoint.own_stages)
