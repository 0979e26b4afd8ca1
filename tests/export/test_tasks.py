"""Files of networks that have learned one or two tasks, and whose classes they name."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from typer.testing import CliRunner

from export.cli import app
from export.parity import compare_engines, load_squares
from export.to_onnx import export_onnx
from service.engine.contract import OUTPUT_NAMES, TASK_OF
from service.engine.engine import load_engine
from service.engine.golden import GOLDEN_PICTURES, check_golden
from tests.training.fakes import make_branches_config
from training.checkpoint import Checkpoint, save_checkpoint
from training.config import Config, Task, keep_tasks, load_config
from training.data.sources import read_data
from training.data.taxonomy import Taxonomy
from training.inference import build_engine, restore_model
from training.models.multitask import build_model

pytestmark = pytest.mark.slow

OWN = Taxonomy(("background", "crack"), ("crack", "rust", "dent"), ("good", "bad"))
CPU = torch.device("cpu")
CALLED = {Task.SEGMENTATION: "segment", Task.DETECTION: "detect", Task.CLASSIFICATION: "classify"}


def make_checkpoint(config: Config, taxonomy: Taxonomy) -> Checkpoint:
    config = keep_tasks(config, taxonomy.tasks)
    torch.manual_seed(0)
    model = build_model(config.model, taxonomy.num_classes)
    evaluation = {"kind": "evaluation", "stage": "x", "metrics": {task.value: {"x": 0.5} for task in taxonomy.tasks}}
    return Checkpoint(
        config.model_dump(mode="json"),
        "0123456789ab",
        model.state_dict(),
        stage=len(config.stages),
        history=[evaluation],
        taxonomy=taxonomy,
    )


@pytest.mark.parametrize(
    ("tasks", "branches"),
    [
        ({Task.DETECTION}, False),
        ({Task.SEGMENTATION, Task.CLASSIFICATION}, False),
        ({Task.SEGMENTATION}, True),
        ({Task.DETECTION, Task.CLASSIFICATION}, True),
    ],
)
def test_a_file_answers_its_tasks_alone_with_the_names_of_the_data(
    tasks: Collection[Task], tmp_path: Path, *, branches: bool
) -> None:
    config = make_branches_config() if branches else load_config("tiny")
    checkpoint = make_checkpoint(config, OWN.keep(tasks))
    out = tmp_path / "model.onnx"
    contract = export_onnx(checkpoint, out, golden=GOLDEN_PICTURES)
    called = {CALLED[task] for task in tasks}
    assert set(contract.tasks) == called
    for task in Task:
        assert getattr(contract, f"{task}_classes") == (OWN.names(task) if task in tasks else ())
    names = [output.name for output in onnx.load(out).graph.output]
    assert names == [name for name in OUTPUT_NAMES if TASK_OF[name] in called]
    engine = load_engine(out)
    check_golden(engine)
    parsed = checkpoint.parsed_config()
    reference = build_engine(restore_model(checkpoint), parsed, checkpoint.taxonomy, CPU, git_commit="0123456789ab")
    squares = load_squares(sorted(GOLDEN_PICTURES.glob("*.jpg")), engine)
    assert not compare_engines(reference, engine, squares, batch_size=3).failures()


def test_the_names_are_those_of_the_checkpoint_whatever_order_others_have(tmp_path: Path) -> None:
    reordered = replace(OWN, detection=OWN.detection[::-1])
    contract = export_onnx(make_checkpoint(load_config("tiny"), reordered), tmp_path / "m.onnx", golden=GOLDEN_PICTURES)
    assert contract.detection_classes == ("dent", "rust", "crack")


def run(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "500", "UNIHEAD_DATA": ""})
    return result.exit_code, result.output


def test_names_that_were_reordered_are_refused_by_parity_and_quantisation(
    finished: Checkpoint, tiny_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, model = tmp_path / "checkpoint.pt", tmp_path / "model.onnx"
    save_checkpoint(finished, checkpoint)
    export_onnx(finished, model, golden=GOLDEN_PICTURES)
    sets = read_data(tiny_sets)
    first, second, *rest = sets.taxonomy.detection
    names = (second, first, *rest)
    mislabelled = replace(sets, taxonomy=replace(sets.taxonomy, detection=names))
    monkeypatch.setattr("export.cli.read_data", lambda _, root: mislabelled)  # noqa: ARG005
    sentence = "detection: class 0 is 'person' in the"
    code, output = run("parity", "--checkpoint", checkpoint, "--model", model, "--data", tiny_sets)
    assert (code, sentence in output) == (1, True), output
    code, output = run("quantize", "--model", model, "--out", tmp_path / "int8.onnx", "--data", tiny_sets)
    assert (code, sentence in output) == (1, True), output
    assert not (tmp_path / "int8.onnx").exists()


def test_parity_measures_the_tasks_that_the_data_has(tiny_sets: Path, tmp_path: Path) -> None:
    checkpoint, model = tmp_path / "checkpoint.pt", tmp_path / "model.onnx"
    boxes = read_data(tiny_sets).taxonomy.keep([Task.DETECTION])
    found = make_checkpoint(load_config("tiny"), boxes)
    save_checkpoint(found, checkpoint)
    export_onnx(found, model, golden=GOLDEN_PICTURES)
    code, output = run("parity", "--checkpoint", checkpoint, "--model", model, "--data", tiny_sets)
    assert code == 0, output
    assert "detection/map_50" in output
    assert "segmentation/" not in output
