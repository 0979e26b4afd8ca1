"""The report of a table of experiments: what each row gained and lost beside the base, as Markdown with a plot."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from training.config import Task
from training.lab.ablation.records import Record, Results, find_errors, find_results
from training.lab.ablation.table import BASE, Direction, Experiment
from training.metrics.evaluation import PRIMARY_METRIC

REPORT_NAME = "ablation.md"
PICTURE_NAME = "pictures/ablation.png"
TITLES = {Task.SEGMENTATION: "mIoU", Task.DETECTION: "mAP@0.5", Task.CLASSIFICATION: "top-1"}
_GAIN, _LOSS = "#0072b2", "#d55e00"  # blue and orange, which few people mistake for each other
_HEADER = (
    "| row | what changed | mIoU: own stage → end (drop) | mAP@0.5 | top-1 | difference to the base, in this order "
    "| seeds | seconds |\n" + "|---" * 8 + "|"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row over its seeds; values are means of the primary metrics, 0..1, by task.

    Attributes:
        seeds: that have results.
        own: after the task's own stage.
        end: after the last stage.
        drops: from own to end, in percent of own; None where there was nothing to lose; not of the task learned last.
        differences: of the end to that of the base, over the seeds that both have; empty without such a seed.
        seconds: a run.
    """

    seeds: tuple[int, ...]
    own: dict[Task, float]
    end: dict[Task, float]
    drops: dict[Task, float | None]
    differences: dict[Task, float]
    seconds: float


def compute_outcome(results: Mapping[int, Results], base: Mapping[int, Results]) -> Outcome:
    """Take the means over the seeds of a row.

    Args:
        results: of the row, by seed; at least one.
        base: of the base, by seed.
    """
    rows = list(results.values())
    own = {task: statistics.fmean(row.own[task][metric] for row in rows) for task, metric in PRIMARY_METRIC.items()}
    end = {task: statistics.fmean(row.end[task][metric] for row in rows) for task, metric in PRIMARY_METRIC.items()}
    shared = [seed for seed in results if seed in base]
    differences = {
        task: statistics.fmean(results[seed].end[task][metric] - base[seed].end[task][metric] for seed in shared)
        for task, metric in PRIMARY_METRIC.items()
        if shared
    }
    return Outcome(
        seeds=tuple(sorted(results)),
        own=own,
        end=end,
        drops={task: 100 * (own[task] - end[task]) / own[task] if own[task] else None for task in rows[0].drops},
        differences=differences,
        seconds=statistics.fmean(row.seconds for row in rows),
    )


def write_report(experiments: Sequence[Experiment], records: Sequence[Record], folder: Path) -> Path:
    """Write the report and, once a row can be compared with the base, its plot; returns the path of the report."""
    folder.mkdir(parents=True, exist_ok=True)
    text = format_report(experiments, records)
    if _list_differences(experiments, records):
        picture = folder / PICTURE_NAME
        picture.parent.mkdir(parents=True, exist_ok=True)
        plot_differences(experiments, records, picture)
        text += f"\n![Difference of each row to the base]({PICTURE_NAME})\n"
    path = folder / REPORT_NAME
    path.write_text(text, encoding="utf-8")
    return path


def format_report(experiments: Sequence[Experiment], records: Sequence[Record]) -> str:
    """Write how the figures came about, the base, and a table a direction, as Markdown.

    Args:
        experiments: the table, the base first; those without a result are listed all the same.
        records: of these; others are left out.
    """
    lines = ["# Ablation", "", *_describe_method(experiments, records)]
    for direction in (BASE, *Direction):
        rows = [one for one in experiments if one.direction == direction]
        if rows:
            title = "The base" if direction == BASE else direction.capitalize()
            lines += ["", f"## {title}", "", _HEADER, *(_format_row(one, experiments[0], records) for one in rows)]
    return "\n".join(lines) + "\n"


def _describe_method(experiments: Sequence[Experiment], records: Sequence[Record]) -> list[str]:
    base = experiments[0].config
    epochs = ", ".join(f"{stage.task} {stage.epochs}" for stage in base.stages)
    text = (
        f"Every row is the base with one thing changed. The base: {base.input_size} px, epochs: {epochs}. Measured on "
        f"{100 * base.holdout:g} % of the training pictures, which are held out; never on the validation split. A drop "
        "is in percent of the value after the task's own stage; a difference is that of the values at the end, with "
        "the same seeds."
    )
    known = {(one.name, one.digest) for one in experiments}
    done = [record for record in records if (record.name, record.digest) in known and record.results]
    if not done:
        return [text, "", "No row has been run yet."]
    assert done[0].results is not None  # noqa: S101 - chosen so
    held = done[0].results.held_out
    commits, machines, seeds = (
        ", ".join(dict.fromkeys(values))
        for values in (
            [record.git_commit for record in done],
            [record.machine for record in done],
            [str(seed) for seed in sorted(record.seed for record in done)],
        )
    )
    return [
        text,
        "",
        f"Made by `unihead-train ablate`; seeds: {seeds}; commits: {commits}; {machines}. Held out: "
        + ", ".join(f"{task} {count}" for task, count in held.items())
        + f" pictures, so that one picture is {1 / held[Task.CLASSIFICATION]:.3f} of top-1.",
    ]


def _format_row(experiment: Experiment, base: Experiment, records: Sequence[Record]) -> str:
    results, errors = find_results(records, experiment), find_errors(records, experiment)
    start = [experiment.name, experiment.sentence]
    if not results:
        told = "; ".join(f"failed with seed {seed}: {error}" for seed, error in errors.items()) or "not run yet"
        if experiment.needs and not errors:
            told += f"; needs {', '.join(experiment.needs)}"
        return _join([*start, told, *[""] * 5])
    outcome = compute_outcome(results, find_results(records, base))
    figures = [_format_values(outcome, task) for task in TITLES]
    differences = outcome.differences if experiment.name != BASE else {}
    beside = ", ".join(f"{value:+.4f}" for value in differences.values())
    seeds = ", ".join(map(str, outcome.seeds)) + "".join(f"; {seed} failed: {why}" for seed, why in errors.items())
    return _join([*start, *figures, beside, seeds, f"{outcome.seconds:.0f}"])


def _format_values(outcome: Outcome, task: Task) -> str:
    if task not in outcome.drops:
        return f"{outcome.end[task]:.4f}"
    drop = outcome.drops[task]
    return f"{outcome.own[task]:.4f} → {outcome.end[task]:.4f}" + ("" if drop is None else f" ({drop:z.1f} %)")


def _join(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _list_differences(
    experiments: Sequence[Experiment], records: Sequence[Record]
) -> list[tuple[str, str, dict[Task, float]]]:
    """List direction, name and difference of the rows that can be compared with the base, as the report has them."""
    base = find_results(records, experiments[0])
    return [
        (direction, one.name, differences)
        for direction in Direction
        for one in experiments[1:]
        if one.direction == direction
        and (results := find_results(records, one))
        and (differences := compute_outcome(results, base).differences)
    ]


def plot_differences(experiments: Sequence[Experiment], records: Sequence[Record], path: Path) -> None:
    """Draw a panel a task with a line a row, from 0 to the row's difference to the base, and write it as PNG."""
    lines: list[tuple[str, dict[Task, float] | None]] = []  # a line without a difference is the title of a direction
    bands: list[tuple[int, int]] = []
    title = ""
    for direction, name, differences in _list_differences(experiments, records):
        if direction != title:
            title = direction
            bands.append((len(lines), len(lines)))
            lines.append((direction, None))
        bands[-1] = bands[-1][0], len(lines)
        lines.append((name, differences))
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False}):
        figure = Figure(figsize=(10, 1.0 + 0.2 * len(lines)), layout="constrained", facecolor="white")
        panels = figure.subplots(1, len(TITLES), sharey=True)
        for axes, (task, metric) in zip(panels, TITLES.items(), strict=True):
            for first, last in bands[::2]:
                axes.axhspan(first - 0.5, last + 0.5, color="0.95", zorder=0)
            _draw_panel(axes, [(row, found[task]) for row, (_, found) in enumerate(lines) if found])
            axes.set_title(metric, fontsize=11)
        panels[0].set_ylim(len(lines) - 0.5, -0.5)
        panels[0].set_yticks(range(len(lines)), [label for label, _ in lines], fontsize=8)
        for label, (_, found) in zip(panels[0].get_yticklabels(), lines, strict=True):
            label.set_fontweight("normal" if found else "bold")
        figure.supxlabel("difference to the base, at the end of training", fontsize=9)
        figure.savefig(path, dpi=110)


def _draw_panel(axes: Any, values: Sequence[tuple[int, float]]) -> None:  # noqa: ANN401 - matplotlib's Axes is untyped here
    rows, differences = [row for row, _ in values], [value for _, value in values]
    colours = [_GAIN if value >= 0 else _LOSS for value in differences]
    axes.axvline(0, color="0.4", linewidth=0.8, zorder=1)
    axes.hlines(rows, 0, differences, color=colours, linewidth=1.6, zorder=2)
    axes.scatter(differences, rows, color=colours, s=22, zorder=3)
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", color="0.85", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
