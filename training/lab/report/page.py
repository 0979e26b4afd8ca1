"""The report of a run as one HTML file that needs nothing else: no network, no script, no files beside it."""

from __future__ import annotations

from html import escape
from importlib import resources
from pathlib import Path

from training.config import Task
from training.data.datasets import DataSets
from training.data.doctor.html import svg
from training.data.loaders import hold_out
from training.data.taxonomy import require_same_classes
from training.files import write_whole
from training.lab.report.curves import stage_charts, whole_run_chart
from training.lab.report.facts import (
    config_section,
    count_seconds,
    data_section,
    environment_section,
    polish_sentences,
    times_section,
)
from training.lab.report.forgetting import MAX_DROP_PERCENT, compute_drops, forgetting_matrix, judge_drop
from training.lab.report.html import METRIC_TITLES, format_metric, format_seconds, note, section, tiles
from training.lab.report.record import RunRecord, load_run_record
from training.lab.report.student import compare_with_student_report
from training.lab.report.tasks import task_section
from training.metrics.evaluation import PRIMARY_METRIC

REPORT_NAME = "report.html"


def write_report(folder: Path, sets: DataSets | None = None) -> Path:
    """Write the report into a run's folder; the same folder and data give the same bytes.

    Args:
        folder: of the run; at least one stage is done.
        sets: the data of the run, for its pictures; None leaves them out.

    Returns:
        The path of the page.

    Raises:
        CheckpointError: there is no run, or it has measured nothing yet.
        DetailsError, RecordError: a file of the run is of another version.
        DataError, TaxonomyError: the data is not that of the run.
        OSError: the page cannot be written.
    """
    record = load_run_record(folder)
    if sets is not None:
        tasks = [task for task in record.tasks if task in sets.taxonomy.tasks]
        advice = "name the data that it learned from"
        owner = "the run"
        require_same_classes(record.taxonomy, sets.taxonomy, tasks, owner=owner, mine=owner, advice=advice)
    measured = sets if sets is None else hold_out(sets, record.config.holdout)
    write_whole(folder / REPORT_NAME, make_page(record, measured))
    return folder / REPORT_NAME


def make_page(record: RunRecord, sets: DataSets | None) -> str:
    """Build the page.

    Args:
        record: of the run.
        sets: its data as it was measured, held-out pictures in the place of the validation split; or None.
    """
    contents = {
        "forgetting": "Forgetting",
        "curves": "Curves",
        **{str(task): str(task).capitalize() for task in record.tasks},
        "student": "Student report",
        "data": "Data",
        "config": "Config",
        "environment": "Environment",
        "times": "Times",
    }
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title in contents.items())
    body = "".join(
        [
            _forgetting(record),
            section("curves", "Curves", stage_charts(record)),
            *(task_section(record, task, sets) for task in record.tasks),
            section(
                "student",
                "Beside the student report",
                compare_with_student_report(record.evaluations, record.parameters),
                note("After a task's own stage → at the end."),
            ),
            data_section(record),
            config_section(record.config),
            environment_section(record),
            times_section(record),
        ]
    )
    return svg.page(
        title=f"Training report: {record.config.preset}",
        style=_read_style("training.data.doctor.html") + _read_style("training.lab.report"),
        subtitle=_subtitle(record),
        body=f"""{_verdict(record)}
{tiles(_figures(record))}
<nav aria-label="Parts of this page">{links}</nav>
{body}""",
        footer="Written by <code>unihead-train report</code>; <code>metrics.jsonl</code> and <code>evaluations/</code> "
        "beside it hold every number.",
    )


def _read_style(package: str) -> str:
    return resources.files(package).joinpath("page.css").read_text(encoding="utf-8")


def _subtitle(record: RunRecord) -> str:
    config = record.config
    return f"commit {record.git_commit}, seed {config.seed}, input {config.input_size} px, {' → '.join(record.stages)}"


def _verdict(record: RunRecord) -> str:
    drops = compute_drops(record.evaluations)
    lost = [f"{task} by {rows[-1][2]:.1f} %" for task, rows in drops.items() if judge_drop(rows) == "fail"]
    if lost:
        tone, head = "error", f"Forgotten: {', '.join(lost)}."
        text = f"At most {MAX_DROP_PERCENT:.0f} % of a task's metric after its own stage may be lost."
    elif not record.is_finished:
        tone, head = "warning", "The run is not finished."
        text = "unihead-train run --resume goes on; so far no task has lost more than it may."
    elif all(len(rows) == 1 for rows in drops.values()):
        tone, head, text = "info", "One stage: nothing could be forgotten.", ""
    elif not any(rows[0][1] for rows in drops.values() if len(rows) > 1):
        tone, head, text = "warning", "Nothing was forgotten, for nothing was learned before the last stage.", ""
    else:
        tone, head = "good", "Nothing was forgotten."
        text = f"No task lost more than {MAX_DROP_PERCENT:.0f} % of its metric after its own stage."
    return (
        f'<div class="verdict {tone}"><strong>{escape(head)}</strong>{f"<p>{escape(text)}</p>" if text else ""}</div>'
    )


def _figures(record: RunRecord) -> dict[str, str]:
    last = record.evaluations[-1]
    metrics = {
        METRIC_TITLES[PRIMARY_METRIC[Task(task)]]: format_metric(measured[PRIMARY_METRIC[Task(task)]])
        for task, measured in last["metrics"].items()
    }
    return metrics | {
        "parameters": f"{record.parameters / 1e6:.2f} M",
        "ms per image": f"{last['ms_per_image']:.1f}",
        "time": format_seconds(count_seconds(record.history)),
    }


def _forgetting(record: RunRecord) -> str:
    return section(
        "forgetting",
        "What was forgotten",
        note(
            "Every metric after each stage. Percentages: change since the task's own stage, which has a frame; "
            "red is lost, green is gained."
        ),
        forgetting_matrix(record.evaluations),
        *map(note, polish_sentences(record)),
        whole_run_chart(record),
    )
