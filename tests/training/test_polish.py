import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from export.to_onnx import ExportError, export_onnx
from service.engine.engine import Engine
from service.engine.golden import GOLDEN_PICTURES
from tests.training.fakes import make_branches_config, make_config, make_model
from tests.training.there import there
from tests.training.watched import CPU, KilledError, assert_same_run, assert_same_tensors, finish
from training.checkpoint import CHECKPOINT_NAME, load_checkpoint, save_checkpoint
from training.config import Config, ConfigError, Task, keep_one_task
from training.data.datasets import DataSets
from training.data.loaders import Sample, TaskDataset, hold_out
from training.data.taxonomy import MINI
from training.lab.report.page import make_page
from training.lab.report.record import load_run_record
from training.lab.summary import SummaryError, load_run, summarise
from training.metrics.evaluation import PRIMARY_METRIC
from training.models.multitask import MultiTaskModel
from training.polish import Polish, judge
from training.progress import RunProgress
from training.stages import Run

PREDICTIONS = ("segmentation.predict", "detection.scores", "detection.boxes", "classification.predict")
POLISH = {"epochs": 2, "batch_size": 2, "learning_rate": 1e-3}


def make_polished_config(**changes: Any) -> Config:  # noqa: ANN401 - of the config
    """One epoch a stage, then two of polish."""
    config = make_branches_config(**({"polish": POLISH} | changes))
    stages = tuple(stage.model_copy(update={"epochs": 1, "batch_size": 6}) for stage in config.stages)
    return config.model_copy(update={"stages": stages})


def make_datasets(sets: DataSets, config: Config) -> dict[Task, TaskDataset]:
    """Two pictures of segmentation, five of detection, three of classification."""
    counts = {Task.SEGMENTATION: 2, Task.DETECTION: 5, Task.CLASSIFICATION: 3}
    return {task: TaskDataset(sets.split(task).train[:count], config, MINI) for task, count in counts.items()}


def make_polish(sets: DataSets, **changes: Any) -> tuple[MultiTaskModel, Polish]:  # noqa: ANN401 - of the config
    config = make_polished_config(**changes)
    model = make_model(config.model)
    return model, Polish(config, model, make_datasets(sets, config), CPU)


def metrics(segmentation: float, detection: float, classification: float) -> dict[str, dict[str, float]]:
    values = zip(Task, (segmentation, detection, classification), strict=True)
    return {str(task): {PRIMARY_METRIC[task]: value, "another": 0.5} for task, value in values}


def test_an_epoch_goes_once_through_the_largest_set_and_round_the_others(sets: DataSets) -> None:
    _, polish = make_polish(sets)
    lead = list(polish.begin_epoch(np.random.default_rng(0)))
    # Two of five, and a last batch of one picture joins the one before it.
    assert [len(batch.images) for batch in lead] == [2, 3]
    assert all(isinstance(batch.targets, tuple) for batch in lead)
    assert sorted(torch.cat([batch.indices for batch in lead]).tolist()) == [0, 1, 2, 3, 4]
    assert polish._others.batches.keys() == {Task.SEGMENTATION, Task.CLASSIFICATION}
    rounds = [batch.indices.tolist() for batch in islice(polish._others.batches[Task.SEGMENTATION], 4)]
    assert [sorted(indices) for indices in rounds] == [[0, 1]] * 4


def test_the_seed_decides_what_an_epoch_draws(sets: DataSets) -> None:
    _, polish = make_polish(sets)
    drawn = []
    for seed in (0, 0, 1):
        lead = [batch.images for batch in polish.begin_epoch(np.random.default_rng(seed))]
        others = [next(polish._others.batches[task]).images for task in (Task.SEGMENTATION, Task.CLASSIFICATION)]
        drawn.append(torch.cat([*lead, *others]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_losses_of_all_tasks_are_summed_and_all_parts_learn(sets: DataSets) -> None:
    model, polish = make_polish(sets)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = polish.learner.train_one_epoch(polish.begin_epoch(np.random.default_rng(0)), epoch=0)
    total = losses.pop("loss")
    assert {name.split("/")[0] for name in losses} == {"segmentation", "detection", "classification"}
    assert total == pytest.approx(sum(losses.values()), rel=1e-5)
    after = model.state_dict()
    for part in ("backbone.0.0", "neck.laterals.0.0", *(f"head.{name}" for name in PREDICTIONS)):
        assert not torch.equal(after[f"{part}.weight"], before[f"{part}.weight"]), part


def test_all_batch_norm_keeps_still(sets: DataSets) -> None:
    model, polish = make_polish(sets)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [{name: value.clone() for name, value in norm.state_dict().items()} for norm in norms]
    polish.learner.train_one_epoch(polish.begin_epoch(np.random.default_rng(0)), epoch=0)
    for norm, state in zip(norms, before, strict=True):
        assert_same_tensors(norm.state_dict(), state)


def test_the_weights_at_the_end_are_the_average_of_the_way(sets: DataSets) -> None:
    ends = []
    for ema in (0.0, 0.99):
        model, polish = make_polish(sets, polish=POLISH | {"ema": ema})
        torch.manual_seed(0)
        polish.learner.train_one_epoch(polish.begin_epoch(np.random.default_rng(0)), epoch=0)
        polish.learner.finish()
        ends.append(model.get_parameter("head.classification.predict.weight"))
    assert not torch.equal(*ends)


@pytest.mark.parametrize(
    ("after", "tolerance", "kept"),
    [
        (metrics(0.4, 0.2, 0.9), 0.0, True),
        (metrics(0.6, 0.5, 0.95), 0.0, True),
        (metrics(0.9, 0.9, 0.89), 0.0, False),
        (metrics(0.39, 0.2, 0.9), 0.02, True),
        (metrics(0.37, 0.2, 0.9), 0.02, False),
        (metrics(float("nan"), 0.9, 0.9), 0.0, False),
    ],
    ids=["equal", "better", "one worse", "within tolerance", "beyond tolerance", "no number"],
)
def test_polished_weights_are_kept_if_no_task_loses(
    after: dict[str, dict[str, float]], tolerance: float, kept: bool
) -> None:
    polished, unpolished = make_model(seed=1).state_dict(), make_model(seed=2).state_dict()
    model = make_model(seed=1)
    before = metrics(0.4, 0.2, 0.9)

    def measure() -> dict[str, dict[str, float]]:
        now = model.get_parameter("head.predict.weight")
        return after if torch.equal(now, polished["head.predict.weight"]) else before

    assert judge(model, unpolished, measure, tolerance) == {"kept": kept, "before": before, "after": after}
    assert_same_tensors(model.state_dict(), polished if kept else unpolished)


def test_a_single_task_cannot_be_polished() -> None:
    with pytest.raises(ConfigError, match="polish trains tasks together"):
        make_config(polish=POLISH, stages=[{"task": "detection", "epochs": 1}])


def test_a_task_that_is_kept_alone_loses_the_polish() -> None:
    alone = keep_one_task(make_branches_config(polish=POLISH), Task.DETECTION)
    assert Config.model_validate(alone.model_dump()).num_stages == 1


def test_a_polish_is_one_stage_more() -> None:
    assert (make_branches_config().num_stages, make_branches_config(polish=POLISH).num_stages) == (3, 4)


Spied = list[tuple[Task, tuple[Sample, ...]]]


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> Spied:
    """What was measured on which pictures; the figures are better from one time to the next."""
    seen: Spied = []

    def measure(_: Engine, task: Task, samples: Sequence[Sample], *, batch_size: int) -> dict[str, float]:
        del batch_size
        seen.append((task, tuple(samples)))
        return {PRIMARY_METRIC[task]: len(seen) / 8}

    monkeypatch.setattr("training.stages.evaluate_task", measure)
    return seen


def make_tolerant_config(**changes: Any) -> Config:  # noqa: ANN401 - of the config
    return make_polished_config(polish=POLISH | {"tolerance": 1.0}, **changes)


@pytest.fixture(scope="module")
def polished(sets: DataSets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run whose polish was kept, whatever came of it; not to be changed."""
    out = tmp_path_factory.mktemp("polished") / "run"

    def on_entry(entry: Mapping[str, Any]) -> None:
        if (entry["stage"], entry.get("epoch")) == ("polish", 1):
            shutil.copytree(out, out.with_name("before"))

    finish(Run.start(make_tolerant_config(), out, CPU, taxonomy=MINI), sets, out, on_entry=on_entry)
    return out


@pytest.fixture(scope="module")
def unpolished(polished: Path) -> Path:
    """Folder of the same run as it was before its polish; not to be changed."""
    return polished.with_name("before")


@pytest.mark.slow
@pytest.mark.parametrize("holdout", [0.0, 0.3])
def test_validation_pictures_have_no_say_in_what_is_kept(
    sets: DataSets, unpolished: Path, tmp_path: Path, spied: Spied, holdout: float
) -> None:
    config = make_polished_config(holdout=holdout)
    begun = load_checkpoint(unpolished / CHECKPOINT_NAME)
    before = replace(begun, config=config.model_dump(mode="json"), pictures={})
    save_checkpoint(before, tmp_path / CHECKPOINT_NAME)
    run = finish(Run.resume(tmp_path, CPU), sets, tmp_path, measure_every=0)
    held = hold_out(sets, holdout or config.polish.holdout)
    splits = {task: held.split(task) for task in Task}
    assert spied == 2 * [(task, split.val) for task, split in splits.items()]
    assert run.checkpoint.pictures == {str(task): len(split.train) for task, split in splits.items()}
    assert not set(there(sets.classification).val) & {sample for _, samples in spied for sample in samples}
    # Each time the figures are better: the polished weights, which are measured first, lose.
    verdict = run.checkpoint.history[-1]
    assert (verdict["kind"], verdict["stage"], verdict["kept"]) == ("polish", "polish", False)
    primaries = [
        [metrics[PRIMARY_METRIC[Task(task)]] for task, metrics in verdict[when].items()] for when in ("after", "before")
    ]
    assert primaries == [[1 / 8, 2 / 8, 3 / 8], [4 / 8, 5 / 8, 6 / 8]]
    assert_same_tensors(load_checkpoint(tmp_path / CHECKPOINT_NAME).model, before.model)
    assert run.checkpoint.stage == 4


@pytest.mark.slow
def test_pictures_for_choices_judge_the_polish_and_none_is_held_out_for_it(
    sets: DataSets, unpolished: Path, tmp_path: Path, spied: Spied
) -> None:
    def divide(split: Any) -> Any:  # noqa: ANN401 - of any task
        return replace(split, val=split.val[2:], choose=split.val[:2])

    chosen = DataSets(MINI, *(divide(sets.split(task)) for task in Task))
    before = replace(load_checkpoint(unpolished / CHECKPOINT_NAME), pictures={})
    save_checkpoint(before, tmp_path / CHECKPOINT_NAME)
    run = finish(Run.resume(tmp_path, CPU), chosen, tmp_path, measure_every=0)
    assert spied == 2 * [(task, chosen.split(task).choose) for task in Task]
    assert run.checkpoint.pictures == dict.fromkeys(map(str, Task), 6)
    verdict = next(entry for entry in run.checkpoint.history if entry["kind"] == "polish")
    assert verdict["splits"] == dict.fromkeys(map(str, Task), "choose")


@pytest.mark.slow
def test_a_polish_that_is_kept_is_told_and_measured(polished: Path) -> None:
    checkpoint = load_checkpoint(polished / CHECKPOINT_NAME)
    entries = [entry for entry in checkpoint.history if entry["stage"] == "polish"]
    kinds = [(entry["kind"], entry.get("epoch"), entry.get("kept")) for entry in entries]
    assert kinds == [("epoch", 1, None), ("epoch", 2, None), ("polish", None, True), ("evaluation", None, None)]
    assert checkpoint.history[-1]["metrics"].keys() == set(Task)
    assert checkpoint.stage == 4
    name = "backbone.0.0.weight"
    assert not torch.equal(checkpoint.model[name], checkpoint.before[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    "kill",
    [("epoch", 1), ("epoch", 2), ("polish", None), ("evaluation", None)],
    ids=["first epoch", "last epoch", "verdict", "evaluation"],
)
def test_a_run_that_is_killed_in_its_polish_goes_on_to_the_same_end(
    sets: DataSets, polished: Path, unpolished: Path, tmp_path: Path, kill: tuple[str, int | None]
) -> None:
    kind, epoch = kill

    def on_entry(entry: Mapping[str, Any]) -> None:
        if (entry["kind"], entry["stage"], entry.get("epoch")) == (kind, "polish", epoch):
            raise KilledError

    shutil.copytree(unpolished, tmp_path, dirs_exist_ok=True)
    with pytest.raises(KilledError):
        finish(Run.resume(tmp_path, CPU), sets, tmp_path, on_entry=on_entry)
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME).stage == 3
    torch.manual_seed(99)
    finish(Run.resume(tmp_path, CPU), sets, tmp_path)
    assert_same_run(tmp_path, polished)


@pytest.mark.slow
def test_summary_and_export_wait_for_the_polish(polished: Path, tmp_path: Path) -> None:
    unfinished = replace(load_checkpoint(polished / CHECKPOINT_NAME), stage=3)
    save_checkpoint(unfinished, tmp_path / CHECKPOINT_NAME)
    with pytest.raises(SummaryError, match="3 of 4 stages"):
        load_run(tmp_path)
    with pytest.raises(ExportError, match="3 of 4 stages"):
        export_onnx(unfinished, tmp_path / "model.onnx", golden=GOLDEN_PICTURES)


@pytest.mark.slow
def test_a_summary_ends_with_the_polish_where_it_was_kept(polished: Path) -> None:
    kept = load_run(polished)
    undone = replace(
        kept, config=make_tolerant_config(seed=1), evaluations=kept.evaluations[:-1], folder=polished / "undone"
    )
    for runs in ([kept, undone], [undone, kept]):
        found = summarise(runs).tasks["classification"]
        assert found.end.values == tuple(run.values(Task.CLASSIFICATION)[-1] for run in runs)
        assert len(found.drops_percent) == 2
    assert summarise([undone]).tasks["classification"].drops_percent == ()


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False])
def test_a_report_says_what_became_of_the_polish(polished: Path, kept: bool) -> None:
    record = load_run_record(polished)
    *history, verdict, evaluation = record.history
    ending = [{**verdict, "kept": kept}, *([evaluation] if kept else [])]
    page = make_page(replace(record, history=[*history, *ending]), None)
    assert f"Joint polish {'kept' if kept else 'undone'}; on held-out training pictures: segmentation 0." in page
    assert "stage polish" in page
    assert ("after polish" in page) is kept


def test_progress_counts_and_tells_the_polish(tmp_path: Path) -> None:
    text = io.StringIO()
    epoch = {"kind": "epoch", "stage": "polish", "epoch": 1, "losses": {"loss": 1.5}, "seconds": 2.0}
    before, after = metrics(0.4, 0.2, 0.9), metrics(0.5, 0.25, 0.8)
    verdict = {"kind": "polish", "stage": "polish", "kept": False, "before": before, "after": after, "seconds": 1.0}
    pictures = {Task.SEGMENTATION: 2, Task.DETECTION: 5, Task.CLASSIFICATION: 3}
    with RunProgress(make_polished_config(), pictures, tmp_path, Console(file=text, width=200)) as progress:
        progress.restore([epoch])
        progress.advance("polish", 5)
        progress.record([epoch, verdict])
        bars = {bar.description: f"{bar.completed} of {bar.total}" for bar in progress._bars.tasks}
    assert (bars["polish"], bars["whole run"]) == ("10 of 10", "10 of 20")
    assert "polish undone: classification  top_1 0.9000 -> 0.8000" in text.getvalue()
