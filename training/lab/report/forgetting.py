"""What each later stage took from the tasks learned before it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from training.config import Task
from training.lab.report.html import Cell, format_metric, metric_name, table
from training.metrics.evaluation import PRIMARY_METRIC

MAX_DROP_PERCENT = 5.0
# A drop of so many percent has the strongest colour.
_DARKEST_PERCENT = 30.0


Trace: TypeAlias = list[tuple[str, float, float]]


def compute_drops(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Trace]:
    """Per task: (stage, value, drop in percent of the value after the task's own stage), own stage first.

    Args:
        evaluations: history entries of kind "evaluation", in the order of the stages.

    Returns:
        By task, of its primary metric; a drop below zero is a gain. A task whose own value is 0 cannot drop: its drops
        are 0.
    """
    tasks = dict.fromkeys(task for entry in evaluations for task in entry["metrics"])
    return {task: trace_metric(evaluations, task, PRIMARY_METRIC[Task(task)]) for task in tasks}


def trace_metric(evaluations: Sequence[Mapping[str, Any]], task: str, metric: str) -> Trace:
    """Give the same of any metric of one task."""
    values = [(entry["stage"], entry["metrics"][task][metric]) for entry in evaluations if task in entry["metrics"]]
    own = values[0][1]
    # Rounded: 0.60 to 0.57 is 5 %, not more.
    return [(stage, value, round(100 * (own - value) / own, 6) if own else 0.0) for stage, value in values]


def judge_drop(rows: Trace) -> str:
    """Say in a word or two what became of a task, from its rows of `compute_drops`."""
    if not rows[0][1]:
        return "nothing to lose"
    if len(rows) == 1:
        return "last stage"
    return "pass" if rows[-1][2] <= MAX_DROP_PERCENT else "fail"


def forgetting_matrix(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """All metrics after each stage as a heat map, shaded by what was lost or gained since the task's own stage."""
    stages = [entry["stage"] for entry in evaluations]
    head = ["Task and metric", *(f"after {stage}" for stage in stages), "Drop", f"At most {MAX_DROP_PERCENT:.0f} %"]
    rows: list[list[str | Cell]] = []
    for task, measured in evaluations[-1]["metrics"].items():
        for name in measured:
            history = trace_metric(evaluations, task, name)
            is_primary = name == PRIMARY_METRIC[Task(task)]
            by_stage = {
                stage: _heat_cell(value, drop, own=place == 0) for place, (stage, value, drop) in enumerate(history)
            }
            cells: list[str | Cell] = [by_stage.get(stage, Cell("", "before")) for stage in stages]
            drop = "" if len(history) == 1 or math.isnan(history[-1][2]) else f"{history[-1][2]:.1f} %"
            title = f"<strong>{task}</strong> {metric_name(name)}" if is_primary else metric_name(name)
            verdict = judge_drop(history) if is_primary else ""
            tone = {"pass": "verdict-good", "fail": "verdict-bad"}.get(verdict, "")
            rows.append([Cell(title), *cells, drop, Cell(verdict, tone)])
    return f'<div class="heat">{table(head, rows)}</div>'


def _heat_cell(value: float, drop: float, *, own: bool) -> Cell:
    if own:
        return Cell(format_metric(value), "own")
    if math.isnan(drop):  # without foreground there is no mean over it
        return Cell(format_metric(value))
    change = "±0 %" if abs(drop) < 0.05 else f"{-drop:+.1f} %"  # noqa: PLR2004 - what rounds to 0
    shade = min(1.0, abs(drop) / _DARKEST_PERCENT)
    return Cell(f"{format_metric(value)}<small>{change}</small>", "loss" if drop > 0 else "gain", shade)
