import math

import pytest

from tests.training.lab.report.records import EVALUATIONS, evaluation
from tests.training.outline import Outline
from training.config import Task
from training.lab.report.forgetting import compute_drops, forgetting_matrix, judge_drop, trace_metric


def test_drops_by_hand() -> None:
    drops = compute_drops(EVALUATIONS)
    assert list(drops) == ["segmentation", "detection", "classification"]
    assert [(stage, value) for stage, value, _ in drops["segmentation"]] == [
        ("segmentation", 0.40),
        ("detection", 0.42),
        ("classification", 0.36),
    ]
    assert [drop for _, _, drop in drops["segmentation"]] == pytest.approx([0, -5, 10])


def test_a_drop_is_measured_from_the_stage_of_the_task_itself() -> None:
    drops = compute_drops([evaluation(Task.SEGMENTATION, 0.2), *EVALUATIONS[1:]])
    assert drops["segmentation"][-1][2] == pytest.approx(-80)


def test_what_scored_nothing_has_nothing_to_lose() -> None:
    assert [drop for _, _, drop in compute_drops(EVALUATIONS)["detection"]] == [0, 0]
    assert judge_drop(compute_drops(EVALUATIONS)["detection"]) == "nothing to lose"


def test_the_last_stage_has_one_row() -> None:
    assert compute_drops(EVALUATIONS)["classification"] == [("classification", 0.8, 0)]
    assert judge_drop(compute_drops(EVALUATIONS)["classification"]) == "last stage"


@pytest.mark.parametrize(("end", "verdict"), [(0.5, "pass"), (0.476, "pass"), (0.474, "fail"), (0.6, "pass")])
def test_a_drop_of_up_to_5_percent_passes(end: float, verdict: str) -> None:
    evaluations = [evaluation(Task.SEGMENTATION, 0.5), evaluation(Task.DETECTION, end, 0.1)]
    assert judge_drop(compute_drops(evaluations)["segmentation"]) == verdict
    row = Outline(forgetting_matrix(evaluations)).row("segmentation mean IoU mean_iou")
    assert row[-1] == verdict


def test_any_metric_can_be_traced() -> None:
    assert trace_metric(EVALUATIONS, "detection", "map_50_95") == [("detection", 0.01, 0), ("classification", 0.01, 0)]


def test_the_heat_map_says_what_was_lost_and_gained_since_a_tasks_own_stage() -> None:
    matrix = forgetting_matrix(EVALUATIONS)
    outline = Outline(matrix)
    assert outline.rows[0][1:4] == ["after segmentation", "after detection", "after classification"]
    segmentation = outline.row("segmentation mean IoU mean_iou")
    assert segmentation[1:] == ["0.4000", "0.4200+5.0 %", "0.3600-10.0 %", "10.0 %", "fail"]
    assert outline.row("detection mAP@0.5 map_50")[1:] == ["", "0.0000", "0.1000±0 %", "0.0 %", "nothing to lose"]
    assert outline.row("classification top-1 top_1")[1:] == ["", "", "0.8000", "", "last stage"]
    # 10 % of the 30 % that are darkest, and a gain of half as much.
    assert 'class="number loss" style="--shade:33%">0.3600' in matrix
    assert 'class="number gain" style="--shade:17%">0.4200' in matrix
    assert 'class="number own">0.4000' in matrix


def test_a_metric_that_has_no_value_has_no_drop() -> None:
    evaluations = [evaluation(Task.SEGMENTATION, 0.4), evaluation(Task.DETECTION, 0.4, 0.1)]
    for entry in evaluations:
        entry["metrics"]["segmentation"]["foreground_mean_iou"] = math.nan
    row = Outline(forgetting_matrix(evaluations)).row("mean IoU without background foreground_mean_iou")
    assert row[1:] == ["\N{EN DASH}", "\N{EN DASH}", "", ""]
    assert "nan" not in forgetting_matrix(evaluations)
