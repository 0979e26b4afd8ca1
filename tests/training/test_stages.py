import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from tests.training.fakes import make_batch, make_config, make_model
from training.checkpoint import CheckpointError, load_checkpoint
from training.config import Config, Task
from training.data.datasets import MiniSets
from training.data.loaders import Batch, iterate_batches
from training.models.backbone import WeightsError
from training.progress import METRICS_NAME, RunProgress
from training.stages import CHECKPOINT_NAME, Run, find_git_commit, make_loss

CPU = torch.device("cpu")
CLASSIFY_ONCE: dict[str, Any] = {"stages": [{"task": "classification", "epochs": 1, "batch_size": 6}]}


class KilledError(Exception):
    """Stands for a kill: nothing after it runs."""


class Watched(RunProgress):
    """Calls back before an entry is shown or pictures are counted, which may kill the run."""

    def __init__(
        self,
        config: Config,
        out: Path,
        *,
        on_entry: Callable[[Mapping[str, Any]], None] = lambda _: None,
        on_batch: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config, dict.fromkeys(Task, 6), out, Console(file=io.StringIO()))
        self._on_entry = on_entry
        self._on_batch = on_batch

    def advance(self, task: Task, pictures: int) -> None:
        self._on_batch()
        super().advance(task, pictures)

    def record(self, history: Sequence[Mapping[str, Any]]) -> None:
        self._on_entry(history[-1])
        super().record(history)


def finish(run: Run, sets: MiniSets, out: Path, **watch: Any) -> Run:  # noqa: ANN401 - callbacks of Watched
    with Watched(run.checkpoint.parsed_config(), out, **watch) as progress:
        run.finish(sets, progress)
    return run


def kill_at(kind: str, stage: Task, epoch: int | None = None) -> Callable[[Mapping[str, Any]], None]:
    def on_entry(entry: Mapping[str, Any]) -> None:
        if (entry["kind"], entry["stage"], entry.get("epoch")) == (kind, stage, epoch):
            raise KilledError

    return on_entry


def refuse(entry: Mapping[str, Any]) -> NoReturn:
    raise AssertionError(f"nothing was left to do, but there is a new entry: {entry}")


def kill_after_batches(count: int) -> Callable[[], None]:
    left = iter(range(count))

    def on_batch() -> None:
        if next(left, None) is None:
            raise KilledError

    return on_batch


def without_times(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    times = {"seconds", "fisher_seconds", "ms_per_image"}
    return [{key: value for key, value in entry.items() if key not in times} for entry in history]


def read_metrics(out: Path) -> list[dict[str, Any]]:
    def refuse_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON")

    lines = (out / METRICS_NAME).read_text(encoding="utf-8").splitlines()
    return [json.loads(line, parse_constant=refuse_constant) for line in lines]


def assert_same_tensors(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def assert_same_run(out: Path, reference: Path) -> None:
    """The same weights, anchors and history, to the bit; times apart."""
    found, expected = (load_checkpoint(folder / CHECKPOINT_NAME) for folder in (out, reference))
    assert (found.stage, found.epoch) == (expected.stage, expected.epoch)
    assert_same_tensors(found.model, expected.model)
    assert found.anchors.keys() == expected.anchors.keys()
    for task, anchor in found.anchors.items():
        assert_same_tensors(anchor.parameters, expected.anchors[task].parameters)
        assert_same_tensors(anchor.importance, expected.anchors[task].importance)
    assert without_times(found.history) == without_times(expected.history)
    assert read_metrics(out) == found.history


def test_starting_saves_a_checkpoint_before_anything_is_learned(tmp_path: Path) -> None:
    run = Run.start(make_config(seed=4), tmp_path / "new" / "run", CPU)
    saved = load_checkpoint(tmp_path / "new" / "run" / CHECKPOINT_NAME)
    assert saved.parsed_config() == make_config(seed=4)
    assert (saved.stage, saved.epoch, saved.history) == (0, 0, [])
    assert saved.git_commit == find_git_commit()
    assert_same_tensors(saved.model, run.checkpoint.model)
    assert_same_tensors(saved.model, make_model(seed=4).state_dict())


def test_starting_where_a_run_lies_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    Run.start(make_config(), tmp_path, CPU)
    before = (tmp_path / CHECKPOINT_NAME).read_bytes()
    with pytest.raises(FileExistsError, match="go on with --resume, or choose another --out"):
        Run.start(make_config(seed=1), tmp_path, CPU)
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == before


def test_starting_without_the_weights_leaves_no_folder(tmp_path: Path) -> None:
    config = make_config(model={"backbone_weights": "imagenet"})
    with pytest.raises(WeightsError):
        Run.start(config, tmp_path / "run", CPU, weights=tmp_path / "absent.pth")
    assert not (tmp_path / "run").exists()


def test_resuming_where_no_run_lies_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        Run.resume(tmp_path, CPU)


@pytest.mark.parametrize("task", list(Task))
def test_each_task_learns_from_its_own_logits_alone(task: Task) -> None:
    model, batch = make_model().eval(), make_batch(task)
    logits = model(batch.images)
    parts = make_loss(make_config(), task, epoch=0)(logits, batch.targets)
    names = {
        Task.SEGMENTATION: {"segmentation"},
        Task.DETECTION: {"confidence", "box", "class"},
        Task.CLASSIFICATION: {"classification"},
    }
    assert parts.keys() == names[task]
    total = torch.stack(list(parts.values())).sum()
    each = [getattr(logits, other) for other in Task]
    gradients = torch.autograd.grad(total, each, allow_unused=True, materialize_grads=True)
    assert [other for other, gradient in zip(Task, gradients, strict=True) if gradient.any()] == [task]


def test_the_detection_loss_is_told_the_epoch_of_its_stage() -> None:
    model, batch = make_model().eval(), make_batch(Task.DETECTION)
    logits = model(batch.images)
    bce, still_bce, focal = (
        make_loss(make_config(), Task.DETECTION, epoch=epoch)(logits, batch.targets)["confidence"].item()
        for epoch in (0, 9, 10)
    )
    assert bce == still_bce > focal


def test_the_commit_is_named_or_unknown() -> None:
    assert find_git_commit() == "unknown" or len(find_git_commit().removesuffix("-dirty")) >= 7


def test_a_run_of_one_stage_learns_and_measures_that_task_alone(sets: MiniSets, tmp_path: Path) -> None:
    run = finish(Run.start(make_config(**CLASSIFY_ONCE), tmp_path, CPU), sets, tmp_path)
    epoch, evaluation = run.checkpoint.history
    assert (epoch["kind"], epoch["stage"], epoch["epoch"]) == ("epoch", "classification", 1)
    assert epoch["losses"].keys() == {"classification", "loss"}
    assert evaluation["metrics"].keys() == {"classification"}
    assert evaluation["ms_per_image"] > 0
    assert not run.checkpoint.anchors


def test_each_epoch_of_each_stage_draws_anew(sets: MiniSets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws: list[int] = []

    def spy(*arguments: Any, rng: np.random.Generator, **options: Any) -> Iterator[Batch]:  # noqa: ANN401 - passed on
        draws.append(deepcopy(rng).integers(2**62).item())
        return iterate_batches(*arguments, rng=rng, **options)

    monkeypatch.setattr("training.stages.iterate_batches", spy)
    stages = [{"task": task, "epochs": 2, "batch_size": 6} for task in ("segmentation", "classification")]
    finish(Run.start(make_config(stages=stages), tmp_path, CPU), sets, tmp_path)
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
    sets: MiniSets, finished_run: Path, tmp_path: Path
) -> None:
    run = Run.start(make_config(), tmp_path, CPU)
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


def test_another_seed_gives_another_run(sets: MiniSets, tmp_path: Path) -> None:
    weights = []
    for seed in (0, 1):
        out = tmp_path / str(seed)
        weights.append(finish(Run.start(make_config(**CLASSIFY_ONCE, seed=seed), out, CPU), sets, out).checkpoint.model)
    assert not torch.equal(weights[0]["head.predict.weight"], weights[1]["head.predict.weight"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "watch",
    [
        {"on_batch": kill_after_batches(1)},
        {"on_entry": kill_at("epoch", Task.SEGMENTATION, 2)},
        {"on_entry": kill_at("evaluation", Task.SEGMENTATION)},
        {"on_batch": kill_after_batches(3 * 2 + 3 + 1)},
        {"on_entry": kill_at("evaluation", Task.DETECTION)},
        {"on_entry": kill_at("epoch", Task.CLASSIFICATION, 2)},
        {"on_entry": kill_at("evaluation", Task.CLASSIFICATION)},
    ],
    ids=[
        "first epoch",
        "last epoch of a stage",
        "first evaluation",
        "amid the second stage",
        "second evaluation",
        "last epoch",
        "last evaluation",
    ],
)
def test_a_killed_run_goes_on_to_the_same_end(
    sets: MiniSets, finished_run: Path, tmp_path: Path, watch: dict[str, Any]
) -> None:
    with pytest.raises(KilledError):
        finish(Run.start(make_config(), tmp_path, CPU), sets, tmp_path, **watch)
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME).stage < 3
    torch.manual_seed(99)  # another process has another state of chance
    finish(Run.resume(tmp_path, CPU), sets, tmp_path)
    assert_same_run(tmp_path, finished_run)


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(sets: MiniSets, finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / CHECKPOINT_NAME).read_bytes()
    finish(Run.resume(tmp_path, CPU), sets, tmp_path, on_entry=refuse)
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == before
    assert_same_run(tmp_path, finished_run)


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_data(sets: MiniSets, finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    fewer = replace(sets, detection=replace(sets.detection, train=sets.detection.train[1:]))
    with pytest.raises(CheckpointError, match="begun with"):
        finish(Run.resume(tmp_path, CPU), fewer, tmp_path)
