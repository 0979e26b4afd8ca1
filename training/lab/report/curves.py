"""How a run went, epoch by epoch: losses, learning rate and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.config import Task
from training.lab.report.charts import Axis, Line, legend, line_chart, make_axis, make_count_axis
from training.lab.report.html import METRIC_TITLES, columns, figure
from training.lab.report.record import RunRecord
from training.metrics.evaluation import PRIMARY_METRIC


def whole_run_chart(record: RunRecord) -> str:
    """The metric that each task is judged by, from its own stage to the end, over the epochs of the whole run."""
    lengths = [sum(1 for epoch in record.epochs if epoch["stage"] == stage) for stage in record.stages]
    starts = [sum(lengths[:place]) for place in range(len(lengths))]
    bands = [
        (float(start), float(start + length), stage)
        for start, length, stage in zip(starts, lengths, record.stages, strict=True)
        if length
    ]
    lines = []
    for place, task in enumerate(record.tasks):
        name = PRIMARY_METRIC[task]
        points = []
        for start, length, stage in zip(starts, lengths, record.stages, strict=True):
            points += [(start + epoch, value) for epoch, value in _measured(record, stage, task, name, length)]
        lines.append(Line(f"{task}: {METRIC_TITLES[name]}", points, place))
    chart = line_chart(
        lines,
        make_count_axis("epoch of the run", sum(lengths)),
        make_axis("validation metric", _highest(lines)),
        spoken=_speak_all("Metrics over the whole run", lines),
        width=980,
        height=300,
        bands=bands,
    )
    return figure("Over the whole run", legend(lines), f'<div class="scroll long">{chart}</div>', wide=True)


def stage_charts(record: RunRecord) -> str:
    """For each stage three charts: losses, learning rate, and the metrics of the tasks learned so far."""
    parts = []
    for stage in record.stages:
        epochs = [epoch for epoch in record.epochs if epoch["stage"] == stage]
        if not epochs:
            continue
        x = make_count_axis("epoch", epochs[-1]["epoch"])
        parts.append(f"<h3 class=stage>Stage {stage}</h3>")
        parts.append(columns(*_charts(record, stage, epochs, x), small=True))
    return "\n".join(parts)


def _charts(record: RunRecord, stage: str, epochs: Sequence[Mapping[str, Any]], x: Axis) -> list[str]:
    charts = [_chart("Mean training loss", _loss_lines(epochs), x, "loss", "Losses")]
    metrics = [
        Line(f"{task}: {METRIC_TITLES[name]}", points, place)
        for place, task in enumerate(record.tasks)
        for name in (PRIMARY_METRIC[task],)
        if (points := [*_before(record, stage, task, name), *_measured(record, stage, task, name, epochs[-1]["epoch"])])
    ]
    if metrics:
        charts.append(_chart("Validation metrics", metrics, x, "validation metric", "Metrics"))
    if rates := [(epoch["epoch"], epoch["learning_rate"]) for epoch in epochs if "learning_rate" in epoch]:
        line = Line("learning rate", rates, 4)
        charts.append(_chart("Learning rate, at the end of each epoch", [line], x, "", "Learning rate"))
    return charts


def _chart(title: str, lines: Sequence[Line], x: Axis, label: str, spoken: str) -> str:
    drawing = line_chart(lines, x, make_axis(label, _highest(lines)), spoken=_speak_all(spoken, lines))
    return figure(title, legend(lines), drawing)


def _loss_lines(epochs: Sequence[Mapping[str, Any]]) -> list[Line]:
    names = list(dict.fromkeys(name for epoch in epochs for name in epoch["losses"]))
    if len(names) == 2:  # noqa: PLR2004 - the sum of one part is that part
        names.remove("loss")
    lines = []
    for place, name in enumerate(names):
        points = [(epoch["epoch"], epoch["losses"][name]) for epoch in epochs if name in epoch["losses"]]
        lines.append(Line("weighted sum", points, None, dashed=True) if name == "loss" else Line(name, points, place))
    return lines


def _measured(record: RunRecord, stage: str, task: Task, metric: str, length: int) -> list[tuple[float, float]]:
    """Epoch of the stage, and value: within the stage, and at its end."""
    points = [
        (float(epoch["epoch"]), epoch["metrics"][task][metric])
        for epoch in record.epochs
        if epoch["stage"] == stage and task in epoch.get("metrics", {})
    ]
    ends = [entry for entry in record.evaluations if entry["stage"] == stage and task in entry["metrics"]]
    return points + [(float(length), entry["metrics"][task][metric]) for entry in ends]


def _before(record: RunRecord, stage: str, task: Task, metric: str) -> list[tuple[float, float]]:
    """Epoch 0, and what the stage before had left."""
    place = record.stages.index(stage)
    earlier = [entry for entry in record.evaluations if entry["stage"] in record.stages[:place]]
    return [(0.0, entry["metrics"][task][metric]) for entry in earlier[-1:] if task in entry["metrics"]]


def _highest(lines: Sequence[Line]) -> float:
    return max((value for line in lines for _, value in line.points), default=0.0)


def _speak_all(title: str, lines: Sequence[Line]) -> str:
    return f"{title}. " + "; ".join(_speak(line) for line in lines)


def _speak(line: Line) -> str:
    if not line.points:
        return f"{line.name}: not measured"
    return f"{line.name} from {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}"
