import json
import shutil
from pathlib import Path

import pytest
import torch

from service.settings import Settings
from tests.training.commands.invoking import assert_one_sentence, invoke, resume, run_tiny
from tests.training.fakes import make_config, make_model
from tests.training.make_sets import write_tiny_sets
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.data.taxonomy import MINI

MODEL = Settings().model


def test_a_missing_data_folder_is_one_sentence_that_names_it(tmp_path: Path) -> None:
    result = run_tiny(tmp_path / "absent", tmp_path / "run")
    assert_one_sentence(result, str(tmp_path / "absent"), "no such folder and no such data file")
    assert not (tmp_path / "run").exists()


def test_an_unknown_preset_is_one_sentence_that_lists_those_there_are(tiny_sets: Path, tmp_path: Path) -> None:
    result = invoke("run", "--preset", "sed", "--data", tiny_sets, "--out", tmp_path / "run")
    assert_one_sentence(result, "sed.toml does not exist", "seed, tiny")


def test_resuming_what_was_never_started_is_one_sentence(tiny_sets: Path, tmp_path: Path) -> None:
    assert_one_sentence(resume(tiny_sets, tmp_path), "checkpoint.pt does not exist")


def test_a_resumed_run_takes_no_other_preset(tiny_sets: Path, tmp_path: Path) -> None:
    result = run_tiny(tiny_sets, tmp_path, "--resume")
    assert result.exit_code == 2
    assert "keeps its own preset" in result.stderr


@pytest.mark.parametrize(("device", "complaint"), [("tpu", "none of auto, cpu and cuda"), ("cuda", "no CUDA device")])
def test_a_device_that_is_not_there_is_told_before_anything_is_written(
    tiny_sets: Path, tmp_path: Path, device: str, complaint: str
) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    result = invoke("run", "--data", tiny_sets, "--out", tmp_path / "run", "--device", device)
    assert result.exit_code == 2
    assert complaint in " ".join(result.stderr.split())
    assert not (tmp_path / "run").exists()


def test_square_brackets_in_a_message_are_printed_as_they_are(tmp_path: Path) -> None:
    result = run_tiny(tmp_path / "[/absent]", tmp_path / "run")
    assert_one_sentence(result, "[/absent]")


def test_a_folder_that_cannot_be_made_is_one_sentence(tiny_sets: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_sentence(run_tiny(tiny_sets, tmp_path / "file" / "run"), "Not a directory")


def test_an_unknown_key_is_one_sentence_that_names_it(tiny_sets: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text('preset = "wrong"\nspeed = 1\n[[stages]]\ntask = "detection"\nepochs = 1\n')
    result = invoke("run", "--preset", tmp_path / "wrong.toml", "--data", tiny_sets, "--out", tmp_path / "run")
    assert_one_sentence(result, "speed", "Extra inputs are not permitted")


@pytest.mark.parametrize("change", ["other shape", "other names"])
def test_weights_that_do_not_fit_are_one_sentence(tiny_sets: Path, tmp_path: Path, change: str) -> None:
    model = make_model().state_dict()
    bias = model.pop("head.predict.bias")
    model["head.predict.bias" if change == "other shape" else "head.predict.offset"] = bias[:-1]
    checkpoint = Checkpoint(make_config().model_dump(mode="json"), "unknown", model, taxonomy=MINI)
    save_checkpoint(checkpoint, path := tmp_path / "checkpoint.pt")
    for result in (
        resume(tiny_sets, tmp_path),
        invoke("evaluate", "--data", tiny_sets, "--checkpoint", path, "--device", "cpu"),
    ):
        assert_one_sentence(result, "do not fit the network and classes of this version", "head.predict")


def test_measuring_a_checkpoint_that_is_missing_is_one_sentence(tiny_sets: Path, tmp_path: Path) -> None:
    result = invoke("evaluate", "--data", tiny_sets, "--checkpoint", tmp_path / "absent.pt")
    assert_one_sentence(result, "absent.pt does not exist")


def test_missing_weights_are_one_sentence_that_names_the_flag(tiny_sets: Path, tmp_path: Path) -> None:
    weights = tmp_path / "absent.pth"
    result = invoke(
        "run", "--preset", "seed", "--data", tiny_sets, "--out", tmp_path / "run", "--backbone-weights", weights
    )
    assert_one_sentence(result, "absent.pth", "--backbone-weights FILE")


def test_what_was_mended_in_the_data_is_shown_as_a_warning(tiny_sets: Path, tmp_path: Path) -> None:
    data = tmp_path / "leaking"
    shutil.copytree(tiny_sets, data)
    split = data / "mini_voc_seg"
    for path in (split / "val").glob("2007_val_000.*"):
        shutil.copy(path, split / "train" / path.name)
    result = invoke("evaluate", "--data", data, "--checkpoint", tmp_path / "absent.pt")
    assert "warning: " in result.stderr
    assert "left out of train" in result.stderr
    assert "2007_val_000.jpg" in result.stderr


def test_reporting_what_was_never_trained_is_one_sentence(tmp_path: Path) -> None:
    assert_one_sentence(invoke("report", tmp_path / "absent"), "checkpoint.pt does not exist")


@pytest.mark.slow
def test_a_run_is_reported_without_its_data_and_not_with_other_data(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    assert invoke("report", tmp_path / "run").exit_code == 0
    other = write_tiny_sets(tmp_path / "other", val=5, seed=1)
    for path in (other / "mini_voc_seg" / "val").iterdir():
        path.rename(path.with_name(f"other_{path.name}"))
    assert_one_sentence(invoke("report", tmp_path / "run", "--data", other), "the data has no validation picture 2007_")


@pytest.mark.slow
def test_a_run_writes_all_its_files_once_and_can_be_resumed_and_measured(tiny_sets: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "first"
    result = run_tiny(tiny_sets, out, "--seed", "3")
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} >= {
        "checkpoint.pt",
        "metrics.jsonl",
        "tensorboard",
        "report.html",
        "evaluations",
        "data.json",
        "environment.jsonl",
    }
    assert str(out / "report.html") in result.stdout
    checkpoint = load_checkpoint(out / "checkpoint.pt")
    assert checkpoint.parsed_config() == make_config(seed=3)
    assert checkpoint.stage == 3
    assert "after classification: detection" in result.stdout

    assert_one_sentence(run_tiny(tiny_sets, out), "checkpoint.pt exists", "--resume")

    before = (out / "checkpoint.pt").read_bytes()
    page = (out / "report.html").read_bytes()
    assert resume(tiny_sets, out).exit_code == 0
    assert (out / "checkpoint.pt").read_bytes() == before

    (out / "report.html").unlink()
    drawn = invoke("report", out, "--data", tiny_sets)
    assert drawn.exit_code == 0, drawn.output
    assert (out / "report.html").read_bytes() == page

    measured = invoke("evaluate", "--data", tiny_sets, "--checkpoint", out / "checkpoint.pt", "--device", "cpu")
    assert measured.exit_code == 0, measured.output
    metrics = json.loads(measured.stdout)
    point = metrics["detection"].pop("at_default_threshold")
    assert metrics == checkpoint.history[-1]["metrics"]
    assert point["score_threshold"] == 0.3
    assert point.keys() >= {"precision", "recall", "f1", "boxes_per_picture", "duplicates_per_picture"}


def write_chosen(tiny_sets: Path, path: Path, *, boxes: str) -> Path:
    """A data file in which the boxes of val are another split, and the classes of pictures are as ever."""
    names = '[classes]\ndetection = "coco"\nclassification = "imagenette"\n'
    sources = [
        ("classification", "imagenette_160", None),
        ("detection", "mini_coco_det/train/labels.json", "train"),
        ("detection", "mini_coco_det/val/labels.json", boxes),
    ]
    lines = [
        f'[[source]]\ntask = "{task}"\npath = "{tiny_sets / where}"\n' + (f'split = "{split}"\n' if split else "")
        for task, where, split in sources
    ]
    path.write_text(names + "".join(lines))
    return path


def test_a_split_of_an_onnx_file_is_measured_that_some_task_has(tiny_sets: Path, tmp_path: Path) -> None:
    data = write_chosen(tiny_sets, tmp_path / "data.toml", boxes="choose")
    expected = {"train": {"detection", "classification"}, "val": {"classification"}, "choose": {"detection"}}
    for split, tasks in expected.items():
        result = invoke("evaluate", "--data", data, "--model", MODEL, "--split", split)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout).keys() == tasks
        absent = {"detection", "classification"} - tasks
        assert [f"has no {split} of {task}" in result.stderr for task in absent] == [True] * len(absent)


@pytest.mark.slow
def test_a_split_of_a_checkpoint_is_measured_or_said_to_be_missing(tiny_sets: Path, finished_run: Path) -> None:
    arguments = ("--checkpoint", finished_run / "checkpoint.pt", "--device", "cpu")
    usual, val, train = (
        invoke("evaluate", "--data", tiny_sets, *arguments, *more)
        for more in ((), ("--split", "val"), ("--split", "train"))
    )
    assert json.loads(usual.stdout) == json.loads(val.stdout) != json.loads(train.stdout)
    missing = invoke("evaluate", "--data", tiny_sets, *arguments, "--split", "choose")
    assert_one_sentence(
        missing, "the data has no choose of segmentation or detection or classification, only train and val"
    )
