import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.training.fakes import make_config
from training.checkpoint import CHECKPOINT_NAME, Checkpoint, save_checkpoint
from training.cli import app
from training.config import Task
from training.data.taxonomy import MINI
from training.lab.summary import FinishedRun, Spread, SummaryError, format_summary, load_run, summarise
from training.metrics.evaluation import PRIMARY_METRIC

PICTURES = dict.fromkeys(map(str, Task), 6)
# Mean IoU, mAP@0.5 and top-1 after each stage.
FIRST = [[0.40], [0.42, 0.0], [0.36, 0.1, 0.8]]
SECOND = [[0.50], [0.48, 0.0], [0.48, 0.2, 0.6]]


def history_of(tasks: Sequence[Task], values: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    history: list[dict[str, Any]] = []
    for position, row in enumerate(values):
        metrics = {
            str(task): {PRIMARY_METRIC[task]: value, "another": 0.9}
            for task, value in zip(tasks[: position + 1], row, strict=True)
        }
        stage = str(tasks[position])
        history.append({"kind": "epoch", "stage": stage, "epoch": 1, "losses": {"loss": 0.1}, "seconds": 1.0})
        history.append({"kind": "evaluation", "stage": stage, "metrics": metrics, "seconds": 1.0})
    return history


def write_run(folder: Path, values: Sequence[Sequence[float]], **changes: Any) -> Path:  # noqa: ANN401 - of the config
    """A run that trained all three tasks, or those that `stages` among the changes names."""
    pictures, commit = changes.pop("pictures", PICTURES), changes.pop("git_commit", "0123abc")
    config = make_config(**changes)
    tasks = [stage.task for stage in config.stages]
    checkpoint = Checkpoint(
        config.model_dump(mode="json"),
        commit,
        {},
        stage=len(values),
        history=history_of(tasks, values),
        pictures={str(task): pictures[task] for task in tasks},
        taxonomy=MINI,
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(checkpoint, folder / CHECKPOINT_NAME)
    return folder


def write_single(folder: Path, task: Task, value: float, **changes: Any) -> Path:  # noqa: ANN401 - of the config
    return write_run(folder, [[value]], stages=[{"task": task, "epochs": 3}], preset="alone", **changes)


def load(*folders: Path) -> list[FinishedRun]:
    return [load_run(folder) for folder in folders]


@pytest.fixture
def two_seeds(tmp_path: Path) -> tuple[Path, Path]:
    return write_run(tmp_path / "zero", FIRST, seed=0), write_run(tmp_path / "one", SECOND, seed=1)


def test_means_deviations_and_drops_by_hand(two_seeds: tuple[Path, Path]) -> None:
    summary = summarise(load(*two_seeds))
    assert (summary.preset, summary.seeds, summary.git_commits) == ("tiny", (0, 1), ("0123abc",))
    assert list(summary.tasks) == ["segmentation", "detection", "classification"]
    found = summary.tasks["segmentation"]
    assert found.metric == "mean_iou"
    assert (found.own.values, found.end.values) == ((0.40, 0.50), (0.36, 0.48))
    assert (found.own.mean, found.end.mean) == pytest.approx((0.45, 0.42))
    # Of two values the sample deviation is their distance over the root of two.
    assert (found.own.std, found.end.std) == pytest.approx((0.1 / 2**0.5, 0.12 / 2**0.5))
    assert found.drop_percent == pytest.approx(100 * 0.03 / 0.45)  # of the means, not the mean of 10 and 4
    assert found.drops_percent == pytest.approx((10, 4))


def test_what_scored_nothing_has_nothing_to_lose_and_the_last_task_nothing_to_forget(
    two_seeds: tuple[Path, Path],
) -> None:
    tasks = summarise(load(*two_seeds)).tasks
    assert (tasks["detection"].drop_percent, tasks["detection"].drops_percent) == (None, (None, None))
    assert tasks["detection"].end.mean == pytest.approx(0.15)
    assert (tasks["classification"].drop_percent, tasks["classification"].drops_percent) == (None, ())
    assert tasks["classification"].own == tasks["classification"].end


def test_one_run_has_no_deviation(two_seeds: tuple[Path, Path]) -> None:
    assert summarise(load(two_seeds[0])).tasks["segmentation"].own == Spread((0.40,), 0.40, None)


def test_the_end_is_set_beside_what_the_task_reaches_alone(two_seeds: tuple[Path, Path], tmp_path: Path) -> None:
    singles = load(
        write_single(tmp_path / "a", Task.SEGMENTATION, 0.5, seed=0),
        write_single(tmp_path / "b", Task.SEGMENTATION, 0.7, seed=1),
        write_single(tmp_path / "c", Task.CLASSIFICATION, 0.5, seed=0, git_commit="fedcba9"),
    )
    summary = summarise(load(*two_seeds), singles)
    segmentation, detection, classification = summary.tasks.values()
    assert segmentation.single is not None
    assert segmentation.single.values == (0.5, 0.7)
    assert segmentation.difference_percent == pytest.approx(-30)
    assert (detection.single, detection.difference_percent) == (None, None)
    assert classification.difference_percent == pytest.approx(40)
    assert summary.git_commits == ("0123abc", "fedcba9")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"preset": "other", "eval_batch_size": 1}, r"one and .*zero differ in eval_batch_size, preset; wanted runs"),
        ({"model": {"backbone_weights": "random", "neck_channels": 8}}, "differ in model"),
        ({"seed": 0}, "both have the seed 0"),
        ({"pictures": {**PICTURES, "detection": 7}}, "was trained on 7 detection pictures, .*zero on 6"),
    ],
)
def test_runs_that_differ_in_more_than_their_seed_are_refused(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    runs = load(
        write_run(tmp_path / "zero", FIRST, seed=0), write_run(tmp_path / "one", FIRST, **{"seed": 1, **changes})
    )
    with pytest.raises(SummaryError, match=sentence):
        summarise(runs)


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SummaryError, match="has finished 2 of 3 stages"):
        load_run(write_run(tmp_path, FIRST[:2]))


def test_baselines_that_are_none_are_refused(two_seeds: tuple[Path, Path], tmp_path: Path) -> None:
    run, other = load(*two_seeds)
    with pytest.raises(SummaryError, match=r"has 3 stages .*; a baseline has one stage"):
        summarise([run], [other])
    (single,) = load(write_single(tmp_path / "a", Task.DETECTION, 0.1))
    with pytest.raises(SummaryError, match=r"learned detection, .* did not"):
        summarise(load(write_single(tmp_path / "b", Task.SEGMENTATION, 0.1)), [single])
    with pytest.raises(SummaryError, match=r"an input of 96 px, .* one of 64 px"):
        summarise([run], load(write_single(tmp_path / "c", Task.DETECTION, 0.1, input_size=96)))
    with pytest.raises(SummaryError, match="trained on 5 detection pictures"):
        summarise([run], load(write_single(tmp_path / "d", Task.DETECTION, 0.1, pictures={**PICTURES, "detection": 5})))
    with pytest.raises(SummaryError, match="both have the seed 0"):
        summarise([run], [single, single])


def test_the_table_has_a_row_per_task(two_seeds: tuple[Path, Path], tmp_path: Path) -> None:
    single = write_single(tmp_path / "a", Task.SEGMENTATION, 0.5)
    text = format_summary(summarise(load(*two_seeds), load(single)))
    first, *_, segmentation, detection, classification = text.splitlines()
    assert first == "Preset `tiny`; seeds: 0, 1; commits: 0123abc."
    assert segmentation == (
        "| segmentation | `mean_iou` | 0.4500 ± 0.0707 | 0.4200 ± 0.0849 | 6.7 (10.0, 4.0) | 0.5000 | -16.0 |"
    )
    assert detection == "| detection | `map_50` | 0.0000 ± 0.0000 | 0.1500 ± 0.0707 |  |  |  |"
    assert classification == "| classification | `top_1` | 0.7000 ± 0.1414 | 0.7000 ± 0.1414 |  |  |  |"
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def ask(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["summary", *(str(argument) for argument in arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_prints_the_table_or_json(two_seeds: tuple[Path, Path], tmp_path: Path) -> None:
    singles = [write_single(tmp_path / task, task, 0.5) for task in (Task.SEGMENTATION, Task.CLASSIFICATION)]
    options = [option for folder in singles for option in ("--baseline", folder)]
    summary = summarise(load(*two_seeds), load(*singles))
    assert ask(*two_seeds, *options) == (0, format_summary(summary) + "\n", "")
    code, printed, _ = ask(*two_seeds, *options, "--json")
    assert code == 0
    found = json.loads(printed)
    assert found["seeds"] == [0, 1]
    assert found["tasks"]["segmentation"]["drop_percent"] == pytest.approx(100 * 0.03 / 0.45)
    assert found["tasks"]["classification"]["difference_percent"] == pytest.approx(40)


def test_the_command_refuses_in_one_sentence(two_seeds: tuple[Path, Path], tmp_path: Path) -> None:
    code, _, complaint = ask(two_seeds[0], tmp_path / "absent")
    assert (code, complaint.count("\n")) == (1, 1)
    assert "absent/checkpoint.pt does not exist" in complaint
    code, _, complaint = ask(two_seeds[0], two_seeds[0])
    assert (code, complaint.count("\n")) == (1, 1)
    assert "both have the seed 0" in complaint


@pytest.mark.slow
def test_a_run_that_was_trained_can_be_summarised(finished_run: Path) -> None:
    summary = summarise([load_run(finished_run)])
    assert list(summary.tasks) == ["segmentation", "detection", "classification"]
