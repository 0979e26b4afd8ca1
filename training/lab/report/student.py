"""The figures of the student report that this project follows, beside those of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from training.config import Task
from training.lab.report.html import table

# What the student report printed: before and after. Its classification fell though it is the last stage, so its first
# figure is probably from a run of its own.
STUDENT_REPORT: dict[str, tuple[str, str, str]] = {
    "parameters": ("1.27 M", "1.27 M", ""),
    "segmentation": ("0.954", "0.975", "called mIoU; the figure fits miou_eps_per_image"),
    "detection": ("0.0015", "0.000", "mAP@0.5"),
    "classification": ("0.800", "0.533", "top-1"),
}
_ROWS = (
    ("miou_eps_per_image", Task.SEGMENTATION, "miou_eps_per_image", True, STUDENT_REPORT["segmentation"][2]),
    ("honest mean IoU", Task.SEGMENTATION, "mean_iou", False, "all background alone has 0.034"),
    ("mAP@0.5", Task.DETECTION, "map_50", True, "classes joined by name here"),
    ("top-1", Task.CLASSIFICATION, "top_1", True, ""),
)


def compare_with_student_report(evaluations: Sequence[Mapping[str, Any]], parameters: int) -> str:
    """Give the table, as markup: after a task's own stage, and at the end."""
    head = ["Figure", "Student report", "This run", "Note"]
    return table(head, list(_rows(evaluations, parameters)), numbers_from=len(head))


def _rows(evaluations: Sequence[Mapping[str, Any]], parameters: int) -> Iterator[list[str]]:
    yield ["parameters", STUDENT_REPORT["parameters"][0], f"{parameters / 1e6:.2f} M", ""]
    for title, task, metric, is_given, note in _ROWS:
        values = [entry["metrics"][task][metric] for entry in evaluations if task in entry["metrics"]]
        if values:
            old = " → ".join(STUDENT_REPORT[task][:2]) if is_given else "not given"
            yield [title, old, f"{values[0]:.4f} → {values[-1]:.4f}", note]
