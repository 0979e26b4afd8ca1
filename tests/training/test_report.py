from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.engine import Engine
from tests.training.fakes import Answer, KnownSession, make_config, make_model
from training.config import Task
from training.data.datasets import MiniSets
from training.inference import make_contract
from training.report import compute_drops, write_report

LEGACY = {"miou_eps_per_image": 0.95, "foreground_mean_iou": 0.1, "pixel_accuracy": 0.7}


def evaluation(stage: Task, *values: float) -> dict[str, Any]:
    """Mean IoU, mAP@0.5 and top-1, as far as they were learned."""
    primary = [("mean_iou", LEGACY), ("map_50", {"map_50_95": 0.01}), ("top_1", {"top_5": 0.9})]
    metrics = {
        str(task): {name: value, **others} for task, value, (name, others) in zip(Task, values, primary, strict=False)
    }
    return {
        "kind": "evaluation",
        "stage": str(stage),
        "metrics": metrics,
        "ms_per_image": 12.34,
        "fisher_seconds": 1.0,
        "seconds": 60.0,
    }


def epoch(stage: Task, number: int) -> dict[str, Any]:
    losses = {str(stage): 1 / number, "ewc/segmentation": 0.1, "loss": 1 / number + 0.1}
    return {"kind": "epoch", "stage": str(stage), "epoch": number, "losses": losses, "seconds": 30.0}


# Segmentation 0.40 -> 0.42 -> 0.36 (a gain of 5 %, then a drop of 10 %); detection 0 -> 0.1.
EVALUATIONS = [
    evaluation(Task.SEGMENTATION, 0.40),
    evaluation(Task.DETECTION, 0.42, 0.0),
    evaluation(Task.CLASSIFICATION, 0.36, 0.1, 0.8),
]


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


def test_the_last_stage_has_one_row() -> None:
    assert compute_drops(EVALUATIONS)["classification"] == [("classification", 0.8, 0)]


def report_of(out: Path, sets: MiniSets, evaluations: list[dict[str, Any]]) -> str:
    config = make_config()
    contract = make_contract(config, {}, git_commit="0123abc")
    boxes = np.array([[4, 4, 40, 40]], dtype=np.float32)
    answer = Answer(np.full((16, 16), 12, dtype=np.uint8), boxes, [16], class_id=3)
    path = write_report(
        out,
        config=config,
        history=[row for entry in evaluations for row in (epoch(Task(entry["stage"]), 1), entry)],
        parameters=sum(parameter.numel() for parameter in make_model().parameters()),
        device="CPU, 1 threads",
        git_commit="0123abc",
        engine=Engine(KnownSession(answer), contract),
        sets=sets,
    )
    assert path == out / "report.md"
    return path.read_text(encoding="utf-8")


def row_of(text: str, start: str) -> str:
    """The first line of a table that starts so."""
    return next(line for line in text.splitlines() if line.startswith(start))


@pytest.fixture(scope="module")
def report(sets: MiniSets, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("report")
    return out, report_of(out, sets, EVALUATIONS)


def test_the_report_states_what_was_run_where_and_how_long_it_took(report: tuple[Path, str]) -> None:
    for fact in ("preset `tiny`", "0123abc", "seed 0", "CPU, 1 threads", "64 px", "12.3 ms per image"):
        assert fact in report[1]
    for task in Task:
        assert f"wall time of stage {task}: 1.5 min" in report[1]
        assert f"{task} 6 / 4" in report[1]


def test_the_report_judges_each_drop_at_5_percent(report: tuple[Path, str]) -> None:
    segmentation, detection, classification = (row_of(report[1], f"| {task} | `") for task in Task)
    assert "0.4000 | 0.4200 | 0.3600 | 10.0 %" in segmentation
    assert "fail" in segmentation
    assert "nothing to lose" in detection
    assert "0.8000" in classification
    assert "last stage" in classification


@pytest.mark.parametrize(("end", "verdict"), [(0.5, "pass"), (0.476, "pass"), (0.474, "fail"), (0.6, "pass")])
def test_a_drop_of_up_to_5_percent_passes(sets: MiniSets, tmp_path: Path, end: float, verdict: str) -> None:
    evaluations = [evaluation(Task.SEGMENTATION, 0.5), evaluation(Task.DETECTION, end, 0.1)]
    text = report_of(tmp_path, sets, evaluations)
    row = row_of(text, "| segmentation | `mean_iou`")
    assert {"pass", "fail"} & set(row.replace("*", " ").split()) == {verdict}


def test_the_report_sets_the_figures_beside_those_of_the_student_report(report: tuple[Path, str]) -> None:
    text = report[1]
    assert "0.954" in row_of(text, "| `miou_eps_per_image`")
    assert "0.9500 → 0.9500" in row_of(text, "| `miou_eps_per_image`")
    assert "0.4000 → 0.3600" in row_of(text, "| honest mIoU")
    assert "0.0000 → 0.1000" in row_of(text, "| mAP@0.5")
    assert "0.8000 → 0.8000" in row_of(text, "| top-1")
    assert "1.27 M" in row_of(text, "| parameters")


def test_every_picture_of_the_report_exists_and_shows_something(report: tuple[Path, str]) -> None:
    out, text = report
    names = [part.split(")")[0] for part in text.split("](")[1:]]
    assert {"figures/losses.png", *(f"figures/samples-{task}.png" for task in Task)} <= set(names)
    for name in names:
        with Image.open(out / name) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("L").getcolors(256) or ()) > 10
