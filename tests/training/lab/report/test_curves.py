import re

from tests.training.lab.report.records import EVALUATIONS, epoch, make_record
from tests.training.outline import Outline
from training.config import Task
from training.lab.report.curves import stage_charts, whole_run_chart

TWO_EPOCHS = [
    entry
    for evaluated in EVALUATIONS
    for stage in (Task(evaluated["stage"]),)
    for entry in (
        epoch(stage, 1, learning_rate=1e-3, metrics=evaluated["metrics"]),
        epoch(stage, 2, learning_rate=5e-4),
        evaluated,
    )
]


def titles(drawing: str, line: str) -> list[str]:
    return re.findall(rf"<title>{re.escape(line)}, ([^<]+)</title>", drawing)


def test_metrics_run_over_the_whole_run_from_a_tasks_own_stage_on() -> None:
    chart = whole_run_chart(make_record(history=TWO_EPOCHS))
    assert titles(chart, "segmentation: mean IoU") == [
        f"epoch of the run {at}: {value}"
        for at, value in ((1, 0.4), (2, 0.4), (3, 0.42), (4, 0.42), (5, 0.36), (6, 0.36))
    ]
    assert titles(chart, "classification: top-1") == ["epoch of the run 5: 0.8", "epoch of the run 6: 0.8"]


def test_each_stage_has_losses_rates_and_metrics() -> None:
    charts = stage_charts(make_record(history=TWO_EPOCHS))
    Outline(charts)
    assert re.findall(r"<h3 class=stage>([^<]+)", charts) == [f"Stage {task}" for task in Task]
    assert charts.count("<svg") == 3 * 3
    detection = charts.split("Stage detection")[1].split("Stage classification")[0]
    assert titles(detection, "detection") == ["epoch 1: 1", "epoch 2: 0.5"]
    assert titles(detection, "weighted sum") == ["epoch 1: 1.1", "epoch 2: 0.6"]
    assert titles(detection, "learning rate") == ["epoch 1: 0.001", "epoch 2: 0.0005"]
    # From what the stage before had left, over the first epoch, to the end.
    assert titles(detection, "segmentation: mean IoU") == ["epoch 0: 0.4", "epoch 1: 0.42", "epoch 2: 0.42"]


def test_a_run_of_an_older_version_has_no_rates() -> None:
    assert "Learning rate" not in stage_charts(make_record())


def test_what_was_measured_on_other_pictures_within_a_stage_is_a_line_of_its_own() -> None:
    final, within = {"splits": {"segmentation": "val"}}, {"splits": {"segmentation": "choose"}}
    first, last = EVALUATIONS[0], EVALUATIONS[1]
    history = [
        epoch(Task.SEGMENTATION, 1, metrics={"segmentation": {"mean_iou": 0.3}}, **within),
        epoch(Task.SEGMENTATION, 2),
        first | final,
        epoch(Task.DETECTION, 1, metrics=last["metrics"], **within),
        last | final,
    ]
    record = make_record(history=history)
    chart = whole_run_chart(record)
    assert titles(chart, "segmentation: mean IoU") == ["epoch of the run 2: 0.4", "epoch of the run 3: 0.42"]
    watched = ["epoch of the run 1: 0.3", "epoch of the run 3: 0.42"]
    assert titles(chart, "segmentation: mean IoU on choose") == watched
    own = stage_charts(record).split("Stage detection")[0]
    assert titles(own, "segmentation: mean IoU on choose") == ["epoch 1: 0.3"]
    assert titles(own, "segmentation: mean IoU") == ["epoch 2: 0.4"]
