import dataclasses
from pathlib import Path

import pytest
from typer.testing import CliRunner

from export.cli import app
from training.checkpoint import Checkpoint, save_checkpoint

pytestmark = pytest.mark.slow


def run(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "UNIHEAD_DATA": ""})
    return result.exit_code, result.output


def test_an_exported_checkpoint_passes_parity_until_it_is_another(
    finished: Checkpoint, tiny_sets: Path, tmp_path: Path
) -> None:
    checkpoint, model = tmp_path / "checkpoint.pt", tmp_path / "model.onnx"
    save_checkpoint(finished, checkpoint)
    code, output = run("onnx", "--checkpoint", checkpoint, "--out", model)
    assert code == 0, output
    assert "4 golden answers" in output
    code, output = run("parity", "--checkpoint", checkpoint, "--model", model)
    assert code == 0, output
    code, output = run("parity", "--checkpoint", checkpoint, "--model", model, "--data", tiny_sets)
    assert code == 0, output
    assert "detection/map_50" in output
    assert "parity holds" in output

    weights = {**finished.model, "head.predict.bias": finished.model["head.predict.bias"] + 1}
    save_checkpoint(dataclasses.replace(finished, model=weights), checkpoint)
    code, output = run("parity", "--checkpoint", checkpoint, "--model", model)
    assert code == 1
    assert "other weights" in output


@pytest.mark.parametrize("command", ["onnx", "parity"])
def test_a_missing_checkpoint_is_one_sentence(command: str, tmp_path: Path) -> None:
    code, output = run(command, "--checkpoint", tmp_path / "none.pt")
    assert code == 1
    assert "does not exist" in output
    assert "Traceback" not in output


def test_a_file_that_is_no_model_is_one_sentence(finished: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(finished, tmp_path / "checkpoint.pt")
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    code, output = run("parity", "--checkpoint", tmp_path / "checkpoint.pt", "--model", tmp_path / "model.onnx")
    assert code == 1
    assert "ONNX Runtime cannot load it" in output
    assert "Traceback" not in output
