"""How a run went, epoch by epoch: losses, learning rate and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from training.config import Task
from training.lab.report.charts import Axis, Line, legend, line_chart, make_axis, make_count_axis
from training.lab.report.html import METRIC_TITLES, columns, figure
from training.lab.report.record import RunRecord
from training.metrics.evaluation import PRIMARY_METRIC

Point: TypeAlias = tuple[float, float, str]  # epoch, value, and the split that it was measured on


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
        points = [
            (start + epoch, value, split)
            for start, length, stage in zip(starts, lengths, record.stages, strict=True)
            for epoch, value, split in _measured(record, stage, task, length)
        ]
        lines += _metric_lines(record, task, points, place)
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
        line
        for place, task in enumerate(record.tasks)
        if (points := [*_before(record, stage, task), *_measured(record, stage, task, epochs[-1]["epoch"])])
        for line in _metric_lines(record, task, points, place)
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


def _metric_lines(record: RunRecord, task: Task, points: Sequence[Point], place: int) -> list[Line]:
    """One line, and another for what was measured on other pictures within stages: figures of two are no curve."""
    final, title = _split_of(record.evaluations[-1], task), f"{task}: {METRIC_TITLES[PRIMARY_METRIC[task]]}"
    lines = [Line(title, [(x, value) for x, value, split in points if split == final], place)]
    for other in dict.fromkeys(split for *_, split in points if split != final):
        watched = [(x, value) for x, value, split in points if split == other]
        lines.append(Line(f"{title} on {other}", watched, place, dashed=True))
    return lines


def _measured(record: RunRecord, stage: str, task: Task, length: int) -> list[Point]:
    """Within the stage, and at its end."""
    entries = [(epoch["epoch"], epoch) for epoch in record.epochs] + [(length, one) for one in record.evaluations]
    own = [(x, entry) for x, entry in entries if entry["stage"] == stage and task in entry.get("metrics", {})]
    return [_point(x, entry, task) for x, entry in own]


def _before(record: RunRecord, stage: str, task: Task) -> list[Point]:
    """Epoch 0, and what the stage before had left."""
    place = record.stages.index(stage)
    earlier = [entry for entry in record.evaluations if entry["stage"] in record.stages[:place]]
    return [_point(0, entry, task) for entry in earlier[-1:] if task in entry["metrics"]]


def _point(x: int, entry: Mapping[str, Any], task: Task) -> Point:
    return float(x), entry["metrics"][task][PRIMARY_METRIC[task]], _split_of(entry, task)


def _split_of(entry: Mapping[str, Any], task: Task) -> str:
    split: str = entry.get("splits", {}).get(task, "val")  # older runs do not say it
    return split


def _highest(lines: Sequence[Line]) -> float:
    return max((value for line in lines for _, value in line.points), default=0.0)


def _speak_all(title: str, lines: Sequence[Line]) -> str:
    return f"{title}. " + "; ".join(_speak(line) for line in lines)


def _speak(line: Line) -> str:
    if not line.points:
        return f"{line.name}: not measured"
    return f"{line.name} from {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}"
