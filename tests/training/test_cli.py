import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.training.fakes import make_config
from training.checkpoint import load_checkpoint
from training.cli import app

WIDE = {"COLUMNS": "1000", "UNIHEAD_BACKBONE_WEIGHTS": "", "UNIHEAD_DATA": ""}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=WIDE)


def run_tiny(data: Path, out: Path, *more: str) -> Result:
    return invoke("run", "--preset", "tiny", "--data", data, "--out", out, "--device", "cpu", *more)


def assert_one_sentence(result: Result, *words: str) -> None:
    """Exit 1, one line on standard error that holds the words, and no traceback."""
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("unihead-train: ")
    assert all(word in line for word in words), line
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output


def test_a_missing_data_folder_is_one_sentence_that_names_it(tmp_path: Path) -> None:
    result = run_tiny(tmp_path / "absent", tmp_path / "run")
    assert_one_sentence(result, str(tmp_path / "absent"), "no such folder")
    assert not (tmp_path / "run").exists()


def test_an_unknown_preset_is_one_sentence_that_lists_those_there_are(tiny_sets: Path, tmp_path: Path) -> None:
    result = invoke("run", "--preset", "sed", "--data", tiny_sets, "--out", tmp_path / "run")
    assert_one_sentence(result, "sed.toml does not exist", "seed, tiny")


def test_resuming_what_was_never_started_is_one_sentence(tiny_sets: Path, tmp_path: Path) -> None:
    assert_one_sentence(run_tiny(tiny_sets, tmp_path, "--resume"), "checkpoint.pt does not exist")


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
    assert "warning: " in result.stdout
    assert "left out of train" in result.stdout
    assert "2007_val_000.jpg" in result.stdout


@pytest.mark.slow
def test_a_run_writes_all_its_files_once_and_can_be_resumed_and_measured(tiny_sets: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "first"
    result = run_tiny(tiny_sets, out, "--seed", "3")
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} >= {
        "checkpoint.pt",
        "metrics.jsonl",
        "tensorboard",
        "report.md",
        "figures",
    }
    assert str(out / "report.md") in result.stdout
    checkpoint = load_checkpoint(out / "checkpoint.pt")
    assert checkpoint.parsed_config() == make_config(seed=3)
    assert checkpoint.stage == 3
    assert "after classification: detection" in result.stdout

    assert_one_sentence(run_tiny(tiny_sets, out), "checkpoint.pt exists", "--resume")

    before = (out / "checkpoint.pt").read_bytes()
    assert run_tiny(tiny_sets, out, "--resume").exit_code == 0
    assert (out / "checkpoint.pt").read_bytes() == before

    measured = invoke("evaluate", "--data", tiny_sets, "--checkpoint", out / "checkpoint.pt", "--device", "cpu")
    assert measured.exit_code == 0, measured.output
    assert json.loads(measured.stdout) == checkpoint.history[-1]["metrics"]
