"""What a run reached in each task: class by class, where it errs, how sure it is, and on which pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from training.config import Task
from training.data.datasets import DataSets
from training.data.doctor.html import charts
from training.lab.report.charts import Line, colour_keys, legend, line_chart, make_axis, matrix_chart, reliability_chart
from training.lab.report.html import columns, figure, format_metric, note, section
from training.lab.report.pictures import picture_sheets
from training.lab.report.record import RunRecord
from training.metrics.calibration import Calibration, Defined
from training.metrics.details import ClassificationDetails, Details, DetectionDetails, SegmentationDetails

_TITLES = {Task.SEGMENTATION: "Segmentation", Task.DETECTION: "Detection", Task.CLASSIFICATION: "Classification"}
_ONE_TABLE = 24  # more classes are laid out in two
_CURVES_OF_CLASSES = 6


def task_section(record: RunRecord, task: Task, sets: DataSets | None) -> str:
    """The part of the page about one task, as it is at the end of the run.

    Args:
        record: of the run; has measured the task.
        task: which.
        sets: what the run was measured on, for the pictures; None leaves them out.

    Raises:
        DataError: the sets are not those that the run was measured on.
    """
    details = record.end_details(task)
    if details is None:
        return section(task, _TITLES[task], note("The run's folder does not hold this task's answers."))
    names, own = record.taxonomy.names(task), record.own_details(task)
    if isinstance(details, SegmentationDetails):
        parts = _segmentation(details, names, own)
    elif isinstance(details, DetectionDetails):
        parts = _detection(details, names, own)
    else:
        parts = _classification(details, names, own)
    if sets is None or task not in sets.taxonomy.tasks:
        parts.append(note("Pictures are drawn where the data is named: unihead-train report RUN --data FOLDER."))
    else:
        parts.append(
            picture_sheets(
                task, names, details.pictures, sets.split(task).final.samples, input_size=record.config.input_size
            )
        )
        parts.append(note(_PICTURE_NOTES[task]))
    return section(task, _TITLES[task], *parts)


_PICTURE_NOTES = {
    Task.SEGMENTATION: "White is void: the annotators drew no line there, and it does not count.",
    Task.DETECTION: "Of the prediction the boxes that score best, as many as there are objects; what they hit at an "
    "IoU of 0.5 is found. Crowds are dashed.",
    Task.CLASSIFICATION: "The three classes that come first, and the true one.",
}


def _segmentation(details: SegmentationDetails, names: Sequence[str], own: Details | None) -> list[str]:
    earlier = own.class_iou if isinstance(own, SegmentationDetails) else None
    bars = class_bars("IoU", names, details.class_iou, earlier, [sum(row) for row in details.confusion], "Pixels")
    return [
        figure("IoU of each class", bars, wide=True),
        figure(
            "Confusion of pixels, percent of the true class",
            note("A row is a true class, a column what was predicted. Void is left out."),
            matrix_chart(details.confusion, names, "pixels"),
            wide=True,
        ),
    ]


def _detection(details: DetectionDetails, names: Sequence[str], own: Details | None) -> list[str]:
    earlier = own.class_ap_50 if isinstance(own, DetectionDetails) else None
    absent = sum(1 for count in details.objects if not count)
    bars = class_bars("AP@0.5", names, details.class_ap_50, earlier, details.objects, "Objects")
    silent = note(f"{absent} of {len(names)} classes have no object in these pictures, and no AP.") if absent else ""
    drawings = [_curves_of_ious(details), _curves_of_classes(details, names)]
    if details.calibration:
        drawings.append(_reliability(details.calibration, "Calibration: the score of a box, and how often it is right"))
    return [figure("Average precision of each class", bars, silent, wide=True), columns(*drawings, small=True)]


def _classification(details: ClassificationDetails, names: Sequence[str], own: Details | None) -> list[str]:
    earlier = own.class_accuracy if isinstance(own, ClassificationDetails) else None
    counts = [sum(row) for row in details.confusion]
    bars = class_bars("top-1", names, details.class_accuracy, earlier, counts, "Pictures")
    return [
        columns(
            "<div>"
            + figure("Top-1 of each class", bars)
            + _reliability(details.calibration, "Calibration: the first class's probability, and how often it is right")
            + "</div>",
            figure(
                "Confusion of pictures, percent of the true class",
                note("A row is a true class, a column what was predicted."),
                matrix_chart(details.confusion, names, "pictures"),
            ),
        ),
    ]


def class_bars(
    metric: str,
    names: Sequence[str],
    values: Defined,
    earlier: Defined | None,
    counts: Sequence[int],
    unit: str,
) -> str:
    """A table with a bar for each class that has a value, the best first; those of 0 in a sentence.

    Args:
        metric: what the values are, 0..1.
        names: of the classes; the position is the class id.
        values: at the end of the run, by class id.
        earlier: after the task's own stage; None where nobody knows, or that is the end.
        counts: how much ground truth each class has, in `unit`.
        unit: such as "Objects".
    """
    is_later = earlier is not None and earlier != values
    before = earlier if earlier is not None and is_later else (None,) * len(values)
    ranked = sorted((-value, label) for label, value in enumerate(values) if value is not None)
    shown = [label for value, label in ranked if value or before[label]]
    missed = [f"{names[label]} ({charts.short(counts[label])})" for _, label in ranked if label not in shown]
    rows = []
    for label in shown:
        value, old = values[label], before[label]
        rows.append(
            f'<tr><th scope="row">{escape(names[label])}</th><td class="bars" aria-hidden="true">'
            f"{_bar('s0', value)}{_bar('before', old)}</td>"
            + (f'<td class="number soft">{format_metric(old)}</td>' if is_later else "")
            + f'<td class="number">{format_metric(value)}</td>'
            f'<td class="number soft">{charts.short(counts[label])}</td></tr>'
        )
    head = (
        f'<thead><tr><th scope="col">Class</th><th scope="col">{metric}, 0 to 1</th>'
        + ('<th scope="col" class="number">Own stage</th>' if is_later else "")
        + f'<th scope="col" class="number">{"End" if is_later else escape(metric)}</th>'
        f'<th scope="col" class="number">{escape(unit)}</th></tr></thead>'
    )
    half = (len(rows) + 1) // 2 if len(rows) > _ONE_TABLE else len(rows)
    tables = [
        f'<table class="classes">{head}<tbody>{"".join(part)}</tbody></table>'
        for part in (rows[:half], rows[half:])
        if part
    ]
    keys = colour_keys([("s0", "at the end"), ("before", "after its own stage")])
    zeros = note(f"At 0, with their {unit.lower()}: {', '.join(missed)}.") if missed else ""
    return (keys if is_later else "") + (columns(*tables) if tables else "") + zeros


def _bar(tone: str, value: float | None) -> str:
    return f'<span class="bar {tone}" style="width:{100 * value:.1f}%"></span>' if value else ""


def _curves_of_ious(details: DetectionDetails) -> str:
    lines = [
        _curve("IoU 0.5", details.precision_50, 0),
        _curve("IoU 0.75", details.precision_75, 1),
        _curve("mean over IoU 0.5 to 0.95", details.precision_50_95, 2),
    ]
    return _precision_recall("Precision and recall, mean over classes", lines)


def _curves_of_classes(details: DetectionDetails, names: Sequence[str]) -> str:
    ranked = sorted(range(len(names)), key=lambda label: (-details.objects[label], label))[:_CURVES_OF_CLASSES]
    lines = [
        _curve(f"{names[label]} ({details.objects[label]})", details.class_precision[label], place)
        for place, label in enumerate(ranked)
        if details.objects[label]
    ]
    return _precision_recall("The classes with most objects, at an IoU of 0.5", lines)


def _curve(name: str, precision: Sequence[float], tone: int) -> Line:
    last = len(precision) - 1
    return Line(name, [(place / last, value) for place, value in enumerate(precision)], tone)


def _precision_recall(title: str, lines: Sequence[Line]) -> str:
    spoken = f"{title}. " + "; ".join(
        f"{line.name}: average precision {sum(value for _, value in line.points) / len(line.points):.4f}"
        for line in lines
    )
    chart = line_chart(lines, make_axis("recall", 1.0), make_axis("precision", 1.0), spoken=spoken, height=290)
    return figure(title, legend(lines), chart)


def _reliability(found: Calibration, title: str) -> str:
    tones = [("s0", "share that is right"), ("s1", "mean score of the bin")]
    keys = colour_keys(tones, "dashed: where both are the same")
    error = (
        f"<p>Expected calibration error <strong>{found.error:.4f}</strong>: "
        "so far score and share right lie apart, on average over the answers.</p>"
    )
    return figure(title, keys, reliability_chart(found.counts, found.scores, found.shares_right), error)
