"""Runs with classes of one's own, of one, two or three tasks, and what has been made with other classes."""

import json
import shutil
import warnings
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from tests.training.fakes import make_branches_config, make_config
from tests.training.make_sets import write_tiny_sets
from tests.training.there import there
from tests.training.watched import CPU, assert_same_tensors, finish
from training.checkpoint import CHECKPOINT_NAME, CheckpointError, choose_classes, load_checkpoint, save_checkpoint
from training.cli import app
from training.config import Config, ConfigError, Task, keep_tasks
from training.data.datasets import DataError, DataSets
from training.data.sources import read_data
from training.data.taxonomy import MINI, Taxonomy, TaxonomyError
from training.inference import TorchSession, build_engine, choose_tasks, open_checkpoint, restore_model
from training.lab.report.page import write_report
from training.metrics.evaluation import evaluate_task
from training.models.multitask import build_model
from training.stages import Run

SEGMENTATION, DETECTION, CLASSIFICATION = Task
FOLDERS = {SEGMENTATION: "mini_voc_seg", DETECTION: "mini_coco_det", CLASSIFICATION: "imagenette_160"}
SOME = [{SEGMENTATION}, {DETECTION}, {CLASSIFICATION}, {DETECTION, CLASSIFICATION}, {SEGMENTATION, DETECTION}]
REPLAYED = {"replay": {"pictures": 2}, "averaging": 0.1}
# Every stage holds on to the earlier ones in some way, and the masks teach boxes.
STAGES = [
    {"task": "segmentation", "epochs": 1, "batch_size": 3, "mask_boxes": 0.5},
    {
        "task": "detection",
        "epochs": 1,
        "batch_size": 3,
        "distillation": {"outputs": 1.0},
        "ewc": {"strength": {"segmentation": 1}},
    },
    {"task": "classification", "epochs": 1, "batch_size": 3, "ewc": {"strength": {"segmentation": 1}}, **REPLAYED},
]
POLISH = {"epochs": 1, "batch_size": 3, "tolerance": 1.0}


def keep_folders(root: Path, tasks: Collection[Task]) -> Path:
    """A copy of the synthetic sets with the folders of these tasks alone."""
    write_tiny_sets(root)
    for task in set(Task) - set(tasks):
        shutil.rmtree(root / FOLDERS[task])
    return root


def swap(taxonomy: Taxonomy, task: Task) -> Taxonomy:
    """The same classes, two of which have changed places: what a reordered list is."""
    names = list(taxonomy.names(task))
    names[1], names[2] = names[2], names[1]
    changes: dict[str, Any] = {task.value: tuple(names)}
    return replace(taxonomy, **changes)


def test_folders_that_are_missing_are_tasks_that_there_are_not(tmp_path: Path) -> None:
    sets = read_data(keep_folders(tmp_path, {DETECTION}))
    assert sets.taxonomy == Taxonomy(detection=MINI.detection)
    assert sets.split(DETECTION) is sets.detection
    with pytest.raises(DataError, match="the data has nothing of segmentation, only of detection"):
        sets.split(SEGMENTATION)


@pytest.mark.parametrize("tasks", SOME, ids=lambda tasks: "+".join(sorted(tasks)))
def test_what_a_stage_would_do_for_a_task_that_is_not_learned_is_left_out(tasks: set[Task]) -> None:
    config = keep_tasks(make_branches_config(stages=STAGES, polish=POLISH), tasks)
    assert {stage.task for stage in config.stages} == tasks
    assert Config.model_validate(config.model_dump(mode="json")) == config
    assert not config.stages[0].methods()
    assert all(set(stage.ewc.strength) <= tasks for stage in config.stages)
    assert bool(config.polish.epochs) == (len(tasks) > 1)
    assert any(stage.mask_boxes for stage in config.stages) == (tasks >= {SEGMENTATION, DETECTION})
    assert config.preset == "-".join(["tiny", *(task for task in Task if task in tasks)])


def test_a_preset_without_any_of_the_tasks_is_an_error() -> None:
    with pytest.raises(ConfigError, match="preset tiny-detection has no stage for segmentation, classification"):
        keep_tasks(keep_tasks(make_config(), {DETECTION}), {CLASSIFICATION, SEGMENTATION})
    with pytest.raises(ConfigError, match="has a stage for segmentation, of which the data has no classes"):
        choose_classes(make_config(), MINI.keep({DETECTION}))


@pytest.mark.parametrize("make", [make_config, make_branches_config])
@pytest.mark.parametrize("tasks", SOME, ids=lambda tasks: "+".join(sorted(tasks)))
def test_a_network_has_the_heads_of_its_tasks_alone(tasks: set[Task], make: Callable[[], Config]) -> None:
    config = keep_tasks(make(), tasks)
    model = build_model(config.model, MINI.keep(tasks).num_classes).eval()
    images = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    logits = model(images)
    assert {Task(name) for name, value in logits._asdict().items() if value is not None} == tasks
    assert not set(model.parts()) & (set(Task) - tasks)
    for task in tasks:
        assert torch.equal(model.head.answer(model.extract(images), task), there(getattr(logits, task)))
    outputs = TorchSession(model, config, CPU).run(images.numpy())
    of_task = {SEGMENTATION: {"mask"}, CLASSIFICATION: {"class_probs"}}
    boxes = {"boxes", "scores", "labels", "num_detections"}
    assert outputs.keys() == set().union(*(of_task.get(task, boxes) for task in tasks))


def run_some(data: Path, tasks: Collection[Task], out: Path, *, branches: bool) -> tuple[DataSets, Run]:
    sets = read_data(keep_folders(data, tasks))
    config = (make_branches_config if branches else make_config)(stages=STAGES, polish=POLISH)
    run = Run.start(keep_tasks(config, tasks), out, CPU, taxonomy=sets.taxonomy)
    return sets, finish(run, sets, out)


@pytest.mark.slow
@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("tasks", SOME, ids=lambda tasks: "+".join(sorted(tasks)))
def test_a_run_of_some_tasks_is_trained_measured_resumed_and_reported(
    tasks: set[Task], tmp_path: Path, *, branches: bool
) -> None:
    sets, run = run_some(tmp_path / "data", tasks, tmp_path / "run", branches=branches)
    saved = load_checkpoint(tmp_path / "run" / CHECKPOINT_NAME)
    assert saved.taxonomy == MINI.keep(tasks)
    assert saved.stage == saved.parsed_config().num_stages
    assert set(saved.evaluations[-1]["metrics"]) == tasks

    again = finish(Run.resume(tmp_path / "run", CPU), sets, tmp_path / "run")
    assert_same_tensors(again.checkpoint.model, run.checkpoint.model)

    engine, learned, size = open_checkpoint(tmp_path / "run" / CHECKPOINT_NAME, CPU)
    assert choose_tasks(engine, learned, sets, owner="the checkpoint") == [task for task in Task if task in tasks]
    for task in learned:
        measured = evaluate_task(engine, task, sets.split(task).val, batch_size=size)
        assert measured == saved.evaluations[-1]["metrics"][task]

    page = write_report(tmp_path / "run", sets).read_text(encoding="utf-8")
    assert {task for task in Task if f'href="#{task}"' in page} == tasks


def test_one_task_is_learned_and_measured_alone(tmp_path: Path) -> None:
    _, run = run_some(tmp_path / "data", {DETECTION}, tmp_path / "run", branches=False)
    (evaluation,) = run.checkpoint.evaluations
    assert evaluation["metrics"].keys() == {"detection"}
    assert not [name for name in run.checkpoint.model if "classification" in name]
    assert run.checkpoint.model["head.predict.weight"].shape[0] == 5 + 80


def invoke(*arguments: object) -> Result:
    env = {"COLUMNS": "1000", "UNIHEAD_BACKBONE_WEIGHTS": "", "UNIHEAD_DATA": ""}
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=env)


@pytest.mark.slow
def test_a_folder_of_boxes_alone_is_trained_by_a_preset_of_three_stages(tmp_path: Path) -> None:
    data, out = keep_folders(tmp_path / "data", {DETECTION}), tmp_path / "run"
    result = invoke("run", "--preset", "tiny", "--data", data, "--out", out, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "the data has nothing of segmentation and classification, so that is not learned" in result.stderr
    assert load_checkpoint(out / CHECKPOINT_NAME).parsed_config().preset == "tiny-detection"
    measured = invoke("evaluate", "--data", data, "--checkpoint", out / CHECKPOINT_NAME, "--device", "cpu")
    assert json.loads(measured.stdout).keys() == {"detection"}
    classes = keep_folders(tmp_path / "classes", {CLASSIFICATION})
    refused = invoke("evaluate", "--data", classes, "--checkpoint", out / CHECKPOINT_NAME, "--device", "cpu")
    assert refused.exit_code == 1
    assert "checkpoint.pt has learned detection, and the data is about classification" in refused.stderr


def test_teachers_of_imagenet_are_left_out_where_it_does_not_know_the_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = read_data(keep_folders(tmp_path / "data", {CLASSIFICATION}))
    own = replace(sets, taxonomy=Taxonomy(classification=tuple(f"own {number}" for number in range(10))))
    monkeypatch.setattr("training.console.read_data", lambda *_, **__: own)
    preset = tmp_path / "taught.toml"
    stage = '[[stages]]\ntask = "classification"\nepochs = 1\n[[stages.teachers]]\nsource = "efficientnet_lite0"\n'
    preset.write_text(f'preset = "taught"\ninput_size = 64\n[model]\nbackbone_weights = "random"\n{stage}')
    arguments = ("run", "--preset", preset, "--data", tmp_path / "data", "--out", tmp_path / "run", "--device", "cpu")
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert "the teacher efficientnet_lite0 of stage classification is left out" in result.stderr
    assert "of 1000 classes none is 'own 0', 'own 1'" in result.stderr
    saved = load_checkpoint(tmp_path / "run" / CHECKPOINT_NAME)
    assert saved.taxonomy == own.taxonomy
    assert not saved.parsed_config().stages[0].teachers


@pytest.mark.parametrize("task", list(Task))
def test_a_run_does_not_go_on_when_the_names_of_its_classes_were_reordered(
    sets: DataSets, finished_run: Path, tmp_path: Path, task: Task
) -> None:
    one, two = MINI.names(task)[1:3]
    mislabelled = replace(sets, taxonomy=swap(MINI, task))
    sentence = f"the run was made with other classes.*{task}: class 1 is '{one}' in the run, '{two}' in the data"
    with pytest.raises(TaxonomyError, match=sentence):
        finish(Run.resume(finished_run, CPU), mislabelled, tmp_path)


@pytest.mark.slow
def test_names_that_were_reordered_are_refused_by_every_command(
    sets: DataSets, tiny_sets: Path, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    mislabelled = replace(sets, taxonomy=swap(MINI, CLASSIFICATION))
    monkeypatch.setattr("training.console.read_data", lambda *_, **__: mislabelled)
    checkpoint = tmp_path / "run" / CHECKPOINT_NAME
    sentence = "classification: class 1 is 'English springer' in the"
    for command in (
        ("evaluate", "--data", tiny_sets, "--checkpoint", checkpoint, "--device", "cpu"),
        ("run", "--resume", "--data", tiny_sets, "--out", tmp_path / "run", "--device", "cpu"),
        ("report", tmp_path / "run", "--data", tiny_sets),
    ):
        result = invoke(*command)
        assert result.exit_code == 1, result.output
        last = result.stderr.splitlines()[-1]
        assert sentence in last
        assert "'cassette player' in the data (2 differ)" in last


def test_a_checkpoint_that_names_no_classes_is_of_the_mini_sets(finished_run: Path, tmp_path: Path) -> None:
    values = torch.load(finished_run / CHECKPOINT_NAME, weights_only=True)  # noqa: TID251 - to write what older versions wrote
    assert Taxonomy.from_dict(values.pop("taxonomy")) == MINI
    torch.save(values, tmp_path / CHECKPOINT_NAME)
    old = load_checkpoint(tmp_path / CHECKPOINT_NAME)
    assert old.taxonomy == MINI
    assert_same_tensors(restore_model(old).state_dict(), values["model"])


def test_a_checkpoint_whose_classes_cannot_be_read_is_told(finished_run: Path, tmp_path: Path) -> None:
    values = torch.load(finished_run / CHECKPOINT_NAME, weights_only=True)  # noqa: TID251 - to spoil it
    torch.save({**values, "taxonomy": {"detection": ["dog"]}}, tmp_path / CHECKPOINT_NAME)
    with pytest.raises(CheckpointError, match="the classes cannot be read"):
        load_checkpoint(tmp_path / CHECKPOINT_NAME)


def test_heads_of_an_old_run_of_one_task_that_nobody_trained_say_nothing(finished_run: Path, tmp_path: Path) -> None:
    finished = load_checkpoint(finished_run / CHECKPOINT_NAME)
    config = keep_tasks(finished.parsed_config(), {CLASSIFICATION})
    save_checkpoint(replace(finished, config=config.model_dump(mode="json"), stage=1), tmp_path / CHECKPOINT_NAME)
    engine, learned, _ = open_checkpoint(tmp_path / CHECKPOINT_NAME, CPU)
    assert learned == [CLASSIFICATION]
    assert engine.contract.tasks == ("classify",)
    assert not engine.contract.detection_classes


def test_a_network_of_few_points_and_classes_does_not_promise_more_boxes_than_it_can_give() -> None:
    taxonomy = Taxonomy(detection=("crack", "rust", "dent"))
    config = keep_tasks(make_config(), {DETECTION})
    model = build_model(config.model, taxonomy.num_classes)
    engine = build_engine(model, config, taxonomy, CPU, git_commit="unknown")
    assert engine.contract.max_detections == 4 * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (prediction,) = engine.predict([torch.zeros(64, 64, 3, dtype=torch.uint8).numpy()])
    assert len(prediction.scores) <= 12
