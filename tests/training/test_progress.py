import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]  # ships no types

from tests.training.fakes import make_config
from training.config import Task
from training.progress import METRICS_NAME, RunProgress

PICTURES = dict.fromkeys(Task, 6)


def epoch(stage: Task, number: int) -> dict[str, Any]:
    losses = {"loss": 1.5 / number, "class": 0.5}
    return {"kind": "epoch", "stage": str(stage), "epoch": number, "losses": losses, "seconds": 2.0}


def evaluation(stage: Task) -> dict[str, Any]:
    metrics = {"segmentation": {"mean_iou": 0.25}}
    return {"kind": "evaluation", "stage": str(stage), "metrics": metrics, "ms_per_image": 1.0, "seconds": 1.0}


HISTORY = [epoch(Task.SEGMENTATION, 1), epoch(Task.SEGMENTATION, 2), evaluation(Task.SEGMENTATION)]


def show(out: Path, history: list[dict[str, Any]], restored: int = 0) -> str:
    """Record a history, of which the first entries are those of a run that goes on; gives what was printed."""
    text = io.StringIO()
    with RunProgress(make_config(), PICTURES, out, Console(file=text, width=200)) as progress:
        progress.restore(history[:restored])
        for end in range(restored + 1, len(history) + 1):
            progress.record(history[:end])
    return text.getvalue()


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / METRICS_NAME).read_text(encoding="utf-8").splitlines()]


def test_the_history_is_written_as_json_one_entry_a_line(tmp_path: Path) -> None:
    show(tmp_path, HISTORY)
    assert lines_of(tmp_path) == HISTORY
    assert {path.name for path in tmp_path.iterdir()} == {METRICS_NAME, "tensorboard"}


def test_what_a_killed_run_wrote_after_its_last_checkpoint_is_taken_back(tmp_path: Path) -> None:
    show(tmp_path, [*HISTORY, epoch(Task.DETECTION, 1)])
    show(tmp_path, HISTORY, restored=2)
    assert lines_of(tmp_path) == HISTORY


def test_going_on_begins_with_the_history_of_the_checkpoint_alone(tmp_path: Path) -> None:
    show(tmp_path, HISTORY)
    show(tmp_path, HISTORY[:1], restored=1)
    assert lines_of(tmp_path) == HISTORY[:1]


def test_each_epoch_and_each_measured_task_is_a_line_on_the_console(tmp_path: Path) -> None:
    printed = show(tmp_path, HISTORY)
    assert "segmentation 2/2  loss 0.7500  class 0.5000  2.0 s" in printed
    assert "after segmentation: segmentation  mean_iou 0.2500" in printed


def test_the_bars_count_the_pictures_of_the_whole_run_and_start_where_it_stopped(tmp_path: Path) -> None:
    text = io.StringIO()
    with RunProgress(make_config(), PICTURES, tmp_path, Console(file=text, width=200)) as progress:
        progress.restore(HISTORY)
        progress.advance(Task.DETECTION, 4)
    shown = [line.split() for line in text.getvalue().splitlines() if "pictures" in line]
    counts = {" ".join(words[: 1 + (words[0] == "whole")]): next(w for w in words if "/" in w) for words in shown}
    assert counts == {"whole run": "16/36", "segmentation": "12/12", "detection": "4/12", "classification": "0/12"}


def test_tensorboard_has_losses_by_epoch_and_metrics_by_stage(tmp_path: Path) -> None:
    show(tmp_path, HISTORY)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = [(e.step, e.value) for e in events.Scalars("segmentation/loss")]
    assert losses == [(1, 1.5), (2, 0.75)]
    measured = [(e.step, e.value) for e in events.Scalars("after_stage/segmentation/mean_iou")]
    assert measured == [(1, 0.25)]


def test_a_run_of_some_stages_has_bars_for_these_alone(tmp_path: Path) -> None:
    text = io.StringIO()
    console = Console(file=text, width=200, force_terminal=True)
    config = make_config(polish={"epochs": 1})
    with RunProgress(config, PICTURES, tmp_path, console, stages=["classification", "polish"]) as progress:
        progress.restore([evaluation(Task.SEGMENTATION)])
        progress.advance("classification", 6)
    shown = text.getvalue()
    assert "6/18" in shown
    assert "6/12" in shown
    assert "polish" in shown
    assert "detection" not in shown


def test_an_evaluation_says_on_what_if_not_on_the_validation_split(tmp_path: Path) -> None:
    told = {"splits": {"segmentation": "choose"}}
    assert "after segmentation, on choose: segmentation  mean_iou 0.2500" in show(
        tmp_path / "one", [*HISTORY[:2], HISTORY[2] | told]
    )
    plain = show(tmp_path / "other", [*HISTORY[:2], HISTORY[2] | {"splits": {"segmentation": "val"}}])
    assert "after segmentation: segmentation" in plain
