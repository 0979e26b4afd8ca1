from typing import Any

import numpy as np
import pytest

from tests.training.lab.report.records import make_details, make_record
from tests.training.outline import Outline
from training.config import Task
from training.data.datasets import DataSets
from training.lab.report.tasks import class_bars, task_section
from training.metrics.details import SegmentationDetails

NAMES = ("background", "cat", "dog", "person")


def bars(earlier: tuple[float | None, ...] | None, values: Any = (0.9, None, 0.25, 0.5)) -> str:  # noqa: ANN401 - scores
    return class_bars("IoU", NAMES, values, earlier, (1000, 0, 20, 30), "Pixels")


def test_classes_are_listed_the_best_first_and_those_without_truth_not_at_all() -> None:
    outline = Outline(bars(None))
    assert outline.rows == [
        ["Class", "IoU, 0 to 1", "IoU", "Pixels"],
        ["background", "", "0.9000", "1,000"],
        ["person", "", "0.5000", "30"],
        ["dog", "", "0.2500", "20"],
    ]
    assert 'class="bar s0" style="width:25.0%"' in bars(None)


def test_what_a_class_had_after_its_own_stage_stands_beside() -> None:
    html = bars((0.8, None, 0.75, 0.5))
    assert Outline(html).row("dog") == ["dog", "", "0.7500", "0.2500", "20"]
    assert 'class="bar before" style="width:75.0%"' in html


def test_classes_of_which_nothing_was_found_are_one_sentence() -> None:
    html = bars(None, (0.9, 0.0, None, 0.0))
    assert [row[0] for row in Outline(html).rows] == ["Class", "background"]
    assert "At 0, with their pixels: cat (0), person (30)." in html
    assert [row[0] for row in Outline(bars((0.9, 0.5, None, 0.0), (0.9, 0.0, None, 0.0))).rows] == [
        "Class",
        "background",
        "cat",
    ]


def test_where_nothing_came_after_there_is_nothing_to_compare() -> None:
    assert bars((0.9, None, 0.25, 0.5)) == bars(None)


@pytest.mark.parametrize("task", list(Task))
def test_each_task_has_its_figures(sets: DataSets, task: Task) -> None:
    record = make_record(details={"classification": make_details(sets)})
    page = task_section(record, task, sets)
    expected = {
        Task.SEGMENTATION: ("IoU of each class", "Confusion of pixels"),
        Task.DETECTION: ("Average precision of each class", "Precision and recall", "Reliability diagram"),
        Task.CLASSIFICATION: ("Top-1 of each class", "Confusion of pictures", "Reliability diagram"),
    }
    for figure in (*expected[task], "Worst pictures", "Best pictures"):
        assert figure in page
    Outline(page)


def test_the_figures_are_those_of_the_details(sets: DataSets) -> None:
    details = make_details(sets)
    segmentation = details[Task.SEGMENTATION]
    assert isinstance(segmentation, SegmentationDetails)
    outline = Outline(task_section(make_record(details={"classification": details}), Task.SEGMENTATION, None))
    dog = segmentation.class_iou[12]
    assert dog is not None
    assert outline.row("dog")[2:] == [f"{dog:.4f}", f"{np.array(segmentation.confusion)[12].sum():,}"]


def test_without_data_the_page_says_how_to_have_pictures(sets: DataSets) -> None:
    page = task_section(make_record(details={"classification": make_details(sets)}), Task.DETECTION, None)
    assert "unihead-train report RUN --data FOLDER" in page
    assert "<img" not in page


def test_a_run_without_details_says_so(sets: DataSets) -> None:
    assert "does not hold this task" in task_section(make_record(), Task.DETECTION, sets)
