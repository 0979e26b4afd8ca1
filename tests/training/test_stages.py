from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from service.engine.engine import Engine
from tests.training.fakes import make_config, make_model
from tests.training.there import there
from tests.training.watched import CPU, assert_same_run, assert_same_tensors, finish, read_metrics
from training.checkpoint import CHECKPOINT_NAME, CheckpointError, load_checkpoint
from training.config import Task
from training.data.batches import Batch
from training.data.datasets import DataSets
from training.data.loaders import Batches, Sample, TaskDataset
from training.data.taxonomy import MINI
from training.environment import find_git_commit
from training.metrics.details import Details, measure_details
from training.metrics.evaluation import evaluate_task
from training.models.backbone import WeightsError
from training.models.heads import UnifiedHead
from training.stages import Run

CLASSIFY_ONCE: dict[str, Any] = {"stages": [{"task": "classification", "epochs": 1, "batch_size": 6}]}


def test_starting_saves_a_checkpoint_before_anything_is_learned(tmp_path: Path) -> None:
    run = Run.start(make_config(seed=4), tmp_path / "new" / "run", CPU, taxonomy=MINI)
    saved = load_checkpoint(tmp_path / "new" / "run" / CHECKPOINT_NAME)
    assert saved.parsed_config() == make_config(seed=4)
    assert (saved.stage, saved.epoch, saved.history) == (0, 0, [])
    assert saved.git_commit == find_git_commit()
    assert_same_tensors(saved.model, run.checkpoint.model)
    assert_same_tensors(saved.model, make_model(seed=4).state_dict())


def test_starting_where_a_run_lies_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    Run.start(make_config(), tmp_path, CPU, taxonomy=MINI)
    before = (tmp_path / CHECKPOINT_NAME).read_bytes()
    with pytest.raises(FileExistsError, match="go on with --resume, or choose another --out"):
        Run.start(make_config(seed=1), tmp_path, CPU, taxonomy=MINI)
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == before


def test_starting_without_the_weights_leaves_no_folder(tmp_path: Path) -> None:
    config = make_config(model={"backbone_weights": "imagenet"})
    with pytest.raises(WeightsError):
        Run.start(config, tmp_path / "run", CPU, weights=tmp_path / "absent.pth", taxonomy=MINI)
    assert not (tmp_path / "run").exists()


def test_resuming_where_no_run_lies_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        Run.resume(tmp_path, CPU)


def test_the_commit_is_named_or_unknown() -> None:
    assert find_git_commit() == "unknown" or len(find_git_commit().removesuffix("-dirty")) >= 7


def test_a_run_of_one_stage_learns_and_measures_that_task_alone(sets: DataSets, tmp_path: Path) -> None:
    run = finish(Run.start(make_config(**CLASSIFY_ONCE), tmp_path, CPU, taxonomy=MINI), sets, tmp_path)
    epoch, evaluation = run.checkpoint.history
    assert (epoch["kind"], epoch["stage"], epoch["epoch"]) == ("epoch", "classification", 1)
    assert epoch["losses"].keys() == {"classification", "loss"}
    assert evaluation["metrics"].keys() == {"classification"}
    assert evaluation["ms_per_image"] > 0
    assert not run.checkpoint.anchors


def test_a_run_that_holds_pictures_out_neither_trains_on_them_nor_sees_the_validation_split(
    sets: DataSets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Path] = []
    measured: list[Path] = []

    def spy_train(samples: Sequence[Sample], *options: Any) -> TaskDataset:  # noqa: ANN401 - passed on
        trained.extend(sample.image for sample in samples)
        return TaskDataset(samples, *options)

    def spy_measure(
        engine: Engine, task: Task, samples: Sequence[Sample], *, batch_size: int
    ) -> tuple[dict[str, float], Details]:
        measured.extend(sample.image for sample in samples)
        return measure_details(engine, task, samples, batch_size=batch_size)

    monkeypatch.setattr("training.stages.TaskDataset", spy_train)
    monkeypatch.setattr("training.stages.measure_details", spy_measure)
    config = make_config(**CLASSIFY_ONCE, holdout=1 / 3)
    run = finish(Run.start(config, tmp_path, CPU, taxonomy=MINI), sets, tmp_path)
    assert (len(trained), len(measured)) == (4, 2)
    assert {*trained, *measured} == {sample.image for sample in there(sets.classification).train}
    assert run.checkpoint.pictures == {"classification": 4}


@pytest.mark.parametrize("has_val", [True, False])
def test_what_is_watched_is_measured_on_choose_and_what_is_final_on_val_if_there_is_one(
    sets: DataSets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_val: bool
) -> None:
    split = there(sets.classification)
    divided = replace(split, val=split.val[2:] if has_val else (), choose=split.val[:2])
    final = divided.val or divided.choose
    seen: dict[str, list[Path]] = {}

    def spy(name: str, measure: Callable[..., Any]) -> None:
        def see(engine: Engine, task: Task, samples: Sequence[Sample], *, batch_size: int) -> object:
            seen[name] = [sample.image for sample in samples]
            return measure(engine, task, samples, batch_size=batch_size)

        monkeypatch.setattr(f"training.stages.{name}", see)

    spy("evaluate_task", evaluate_task)
    spy("measure_details", measure_details)
    config = make_config(stages=[{"task": "classification", "epochs": 2, "batch_size": 6}])
    run = finish(
        Run.start(config, tmp_path, CPU, taxonomy=MINI),
        replace(sets, classification=divided),
        tmp_path,
        measure_every=1,
    )
    assert seen == {
        "evaluate_task": [sample.image for sample in divided.choose],
        "measure_details": [sample.image for sample in final],
    }
    told = [entry.get("splits") for entry in run.checkpoint.history]
    last = "val" if has_val else "choose"
    assert told == [{"classification": "choose"}, None, {"classification": last}]
    assert read_metrics(tmp_path) == run.checkpoint.history


def test_measuring_within_a_stage_changes_nothing_but_the_history(sets: DataSets, tmp_path: Path) -> None:
    config = make_config(stages=[{"task": "classification", "epochs": 3, "batch_size": 6, "ema": 0.9}])
    plain, watched = (
        finish(
            Run.start(config, tmp_path / str(every), CPU, taxonomy=MINI),
            sets,
            tmp_path / str(every),
            measure_every=every,
        ).checkpoint
        for every in (0, 1)
    )
    assert_same_tensors(plain.model, watched.model)
    measured = [entry.get("metrics", {}).keys() for entry in watched.history]
    assert measured == [{"classification"}, {"classification"}, set(), {"classification"}]  # the last says it itself
    assert [entry["losses"] for entry in plain.history[:3]] == [entry["losses"] for entry in watched.history[:3]]
    rates = [entry["learning_rate"] for entry in watched.history[:3]]  # one step each: warm-up, then a cosine
    assert rates == pytest.approx([1e-3, 1e-3, 0.5e-3])


def test_each_epoch_of_each_stage_draws_anew(sets: DataSets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws: list[int] = []

    def spy(*arguments: Any, rng: np.random.Generator, **options: Any) -> Iterator[Batch]:  # noqa: ANN401 - passed on
        draws.append(deepcopy(rng).integers(2**62).item())
        return Batches(*arguments, rng=rng, **options)

    monkeypatch.setattr("training.stages.Batches", spy)
    stages = [{"task": task, "epochs": 2, "batch_size": 6} for task in ("segmentation", "classification")]
    finish(Run.start(make_config(stages=stages), tmp_path, CPU, taxonomy=MINI), sets, tmp_path)
    assert len(set(draws)) == 4


@pytest.mark.slow
def test_each_stage_measures_all_tasks_learned_so_far(finished_run: Path) -> None:
    history = load_checkpoint(finished_run / CHECKPOINT_NAME).history
    kinds = [(entry["kind"], entry["stage"], entry.get("epoch")) for entry in history]
    assert kinds == [
        row for task in Task for row in (("epoch", task, 1), ("epoch", task, 2), ("evaluation", task, None))
    ]
    measured = [list(entry["metrics"]) for entry in history if entry["kind"] == "evaluation"]
    tasks = [str(task) for task in Task]
    assert measured == [tasks[:1], tasks[:2], tasks]
    protections = [{name for name in entry["losses"] if name.startswith("ewc/")} for entry in history[0::3]]
    assert protections == [set(), {"ewc/segmentation"}, {"ewc/segmentation", "ewc/detection"}]


@pytest.mark.slow
def test_the_metrics_file_is_the_history_as_json(finished_run: Path) -> None:
    checkpoint = load_checkpoint(finished_run / CHECKPOINT_NAME)
    assert read_metrics(finished_run) == checkpoint.history
    figures = [
        value for entry in checkpoint.history for part in entry.get("metrics", {}).values() for value in part.values()
    ]
    assert all(0 <= value <= 1 for value in figures)
    assert list((finished_run / "tensorboard").iterdir())


@pytest.mark.slow
def test_anchors_weigh_the_shared_parameters_of_the_tasks_that_are_protected_later(finished_run: Path) -> None:
    anchors = load_checkpoint(finished_run / CHECKPOINT_NAME).anchors
    assert list(anchors) == [Task.SEGMENTATION, Task.DETECTION]
    shared = make_model().shared_parameters()
    for anchor in anchors.values():
        assert anchor.importance.keys() == anchor.parameters.keys() == shared.keys()
        assert not any(name.startswith("head.predict") for name in anchor.importance)
        values = torch.cat([value.ravel() for value in anchor.importance.values()])
        assert values.mean().item() == pytest.approx(1, rel=1e-3)
        assert (values >= 0).all()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_to_the_bit_and_each_stage_only_its_own_rows(
    sets: DataSets, finished_run: Path, tmp_path: Path
) -> None:
    run = Run.start(make_config(), tmp_path, CPU, taxonomy=MINI)
    assert isinstance(run._model.head, UnifiedHead)
    predict, rows = run._model.head.predict, run._model.head.rows
    assert predict.bias is not None
    seen: list[tuple[str, Tensor, Tensor]] = [("start", predict.weight.detach().clone(), predict.bias.detach().clone())]

    def on_entry(entry: Mapping[str, Any]) -> None:
        assert predict.bias is not None
        if entry["kind"] == "evaluation":
            seen.append((entry["stage"], predict.weight.detach().clone(), predict.bias.detach().clone()))

    finish(run, sets, tmp_path, on_entry=on_entry)
    assert_same_run(tmp_path, finished_run)
    assert [stage for stage, _, _ in seen] == ["start", *Task]
    for (_, *before), (stage, *after) in pairwise(seen):
        for task in Task:
            for old, new in zip(before, after, strict=True):
                assert torch.equal(old[rows[task]], new[rows[task]]) is (task != stage), (stage, task)


def test_another_seed_gives_another_run(sets: DataSets, tmp_path: Path) -> None:
    weights = []
    for seed in (0, 1):
        out = tmp_path / str(seed)
        weights.append(
            finish(
                Run.start(make_config(**CLASSIFY_ONCE, seed=seed), out, CPU, taxonomy=MINI), sets, out
            ).checkpoint.model
        )
    assert not torch.equal(weights[0]["head.predict.weight"], weights[1]["head.predict.weight"])
