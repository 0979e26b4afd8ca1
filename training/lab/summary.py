"""Several runs of one preset side by side: what the seed does, what is forgotten, what a single task would reach."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checkpoint import CHECKPOINT_NAME, load_checkpoint
from training.config import Config, Task
from training.metrics.evaluation import PRIMARY_METRIC


class SummaryError(ValueError):
    """Runs that cannot be compared."""


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """One run that trained all its stages.

    Attributes:
        folder: where it lies.
        git_commit: of the code that began it.
        pictures: training pictures by task.
        evaluations: as `Checkpoint.evaluations`.
    """

    folder: Path
    config: Config
    git_commit: str
    pictures: Mapping[str, int]
    evaluations: Sequence[Mapping[str, Any]]

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks learned, in the order learned."""
        return tuple(Task(name) for name in self.evaluations[-1]["metrics"])

    def values(self, task: Task) -> list[float]:
        """Give the primary metric of a task, 0..1, after its own stage and after each later one."""
        measured = [entry["metrics"][task] for entry in self.evaluations if task in entry["metrics"]]
        return [metrics[PRIMARY_METRIC[task]] for metrics in measured]


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure of several runs.

    Attributes:
        values: one per run, 0..1.
        mean: of them.
        std: their sample standard deviation (n - 1); None for one run.
    """

    values: tuple[float, ...]
    mean: float
    std: float | None


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """One task over all runs; values by run are in the order of the runs.

    Attributes:
        metric: name of the primary metric.
        own: after the task's own stage.
        end: after the last stage, or the polish where it was kept.
        drop_percent: from the mean of `own` to the mean of `end`; below zero it is a gain. None where nothing came
            after the task's own stage or there was nothing to lose.
        drops_percent: the same of each run; empty where nothing came after the task's own stage.
        single: of the runs that learned this task alone; None without them.
        difference_percent: how much better, in percent of the mean of `single`, the mean of `end` is.
    """

    metric: str
    own: Spread
    end: Spread
    drop_percent: float | None
    drops_percent: tuple[float | None, ...]
    single: Spread | None
    difference_percent: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Several runs that differ in nothing but their seed.

    Attributes:
        preset: of all of them.
        seeds: in the order of the runs.
        git_commits: of the code, of the baselines too; more than one is worth a second look.
        tasks: by name, in the order learned.
    """

    preset: str
    seeds: tuple[int, ...]
    git_commits: tuple[str, ...]
    tasks: dict[str, TaskSummary]


def load_run(folder: Path) -> FinishedRun:
    """Read a run's checkpoint.

    Raises:
        CheckpointError: there is none.
        SummaryError: the run is not finished.
    """
    checkpoint = load_checkpoint(folder / CHECKPOINT_NAME)
    config = checkpoint.parsed_config()
    if checkpoint.stage < config.num_stages:
        raise SummaryError(
            f"{folder} has finished {checkpoint.stage} of {config.num_stages} stages; "
            "go on with `unihead-train run --resume`"
        )
    return FinishedRun(folder, config, checkpoint.git_commit, checkpoint.pictures, checkpoint.evaluations)


def summarise(runs: Sequence[FinishedRun], baselines: Sequence[FinishedRun] = ()) -> Summary:
    """Compare runs of one config with different seeds.

    Args:
        runs: at least one.
        baselines: runs of one stage each, also with several seeds; their tasks are among those of the runs.

    Raises:
        SummaryError: a run was trained in another way or on other pictures, a seed comes twice, or a baseline is none.
    """
    _check_alike(runs)
    singles = {task: [one for one in baselines if one.tasks == (task,)] for task in runs[0].tasks}
    for baseline in baselines:
        _check_baseline(baseline, runs[0])
    for group in singles.values():
        _check_alike(group)
    return Summary(
        preset=runs[0].config.preset,
        seeds=tuple(run.config.seed for run in runs),
        git_commits=tuple(dict.fromkeys(run.git_commit for run in [*runs, *baselines])),
        tasks={str(task): _summarise_task(task, runs, group) for task, group in singles.items()},
    )


def _check_alike(runs: Sequence[FinishedRun]) -> None:
    for position, run in enumerate(runs[1:], start=1):
        found, wanted = run.config.model_dump(mode="json"), runs[0].config.model_dump(mode="json")
        differing = sorted(key for key in wanted if key != "seed" and found[key] != wanted[key])
        if differing:
            raise SummaryError(
                f"{run.folder} and {runs[0].folder} differ in {', '.join(differing)}; wanted runs of one preset that "
                "differ in their seed alone"
            )
        _check_pictures(run, runs[0])
        for earlier in runs[:position]:
            if run.config.seed == earlier.config.seed:
                raise SummaryError(
                    f"{run.folder} and {earlier.folder} both have the seed {run.config.seed}; wanted different seeds"
                )


def _check_baseline(baseline: FinishedRun, run: FinishedRun) -> None:
    if len(baseline.evaluations) != 1 or len(baseline.tasks) != 1:
        raise SummaryError(
            f"{baseline.folder} has {len(baseline.evaluations)} stages and learned {', '.join(baseline.tasks)}; "
            "a baseline has one stage and learns one task"
        )
    if baseline.tasks[0] not in run.tasks:
        raise SummaryError(f"{baseline.folder} learned {baseline.tasks[0]}, {run.folder} did not; nothing to compare")
    if baseline.config.input_size != run.config.input_size:
        raise SummaryError(
            f"{baseline.folder} has an input of {baseline.config.input_size} px, {run.folder} one of "
            f"{run.config.input_size} px; wanted the same"
        )
    _check_pictures(baseline, run)


def _check_pictures(run: FinishedRun, other: FinishedRun) -> None:
    for task in run.tasks:
        found, wanted = run.pictures.get(task), other.pictures.get(task)
        if found != wanted:
            raise SummaryError(
                f"{run.folder} was trained on {found} {task} pictures, {other.folder} on {wanted}; wanted the same data"
            )


def _summarise_task(task: Task, runs: Sequence[FinishedRun], baselines: Sequence[FinishedRun]) -> TaskSummary:
    values = [run.values(task) for run in runs]
    own, end = _spread([row[0] for row in values]), _spread([row[-1] for row in values])
    single = _spread([run.values(task)[0] for run in baselines]) if baselines else None
    learned_last = all(len(row) == 1 for row in values)
    return TaskSummary(
        metric=PRIMARY_METRIC[task],
        own=own,
        end=end,
        drop_percent=None if learned_last else _percent_of(own.mean, own.mean - end.mean),
        drops_percent=() if learned_last else tuple(_percent_of(row[0], row[0] - row[-1]) for row in values),
        single=single,
        difference_percent=_percent_of(single.mean, end.mean - single.mean) if single else None,
    )


def _spread(values: Sequence[float]) -> Spread:
    std = statistics.stdev(values) if len(values) > 1 else None
    return Spread(tuple(values), statistics.fmean(values), std)


def _percent_of(reference: float, difference: float) -> float | None:
    # Rounded as in `lab.report.forgetting`: 0.60 to 0.57 is 5 %, not more.
    return round(100 * difference / reference, 6) if reference else None


def format_summary(summary: Summary) -> str:
    """Write a summary as Markdown: a line that says what was run, and a table with a row per task."""
    seeds, commits = ", ".join(map(str, summary.seeds)), ", ".join(summary.git_commits)
    lines = [
        f"Preset `{summary.preset}`; seeds: {seeds}; commits: {commits}.",
        "Mean ± standard deviation over the seeds. A drop is in percent of the own-stage mean; in brackets, by seed.",
        "",
        "| task | metric | after its own stage | at the end | drop, % | learned alone | at the end beside alone, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, task in summary.tasks.items():
        cells = [
            name,
            f"`{task.metric}`",
            _format_spread(task.own),
            _format_spread(task.end),
            _format_drops(task),
            _format_spread(task.single) if task.single else "",
            "" if task.difference_percent is None else f"{task.difference_percent:+.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _format_spread(spread: Spread) -> str:
    return f"{spread.mean:.4f}" + ("" if spread.std is None else f" ± {spread.std:.4f}")


def _format_drops(task: TaskSummary) -> str:
    if task.drop_percent is None:
        return ""
    each = ", ".join("-" if drop is None else f"{drop:.1f}" for drop in task.drops_percent)
    return f"{task.drop_percent:.1f} ({each})"
