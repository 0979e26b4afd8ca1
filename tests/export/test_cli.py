import dataclasses
from pathlib import Path

import pytest
from typer.testing import CliRunner

from export.cli import app
from service.engine.engine import load_engine
from training.checkpoint import Checkpoint, save_checkpoint
from training.starting.origin import keep_weights

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


def test_weights_alone_are_exported_and_the_paths_of_a_data_file_count_from_the_root(
    finished_branches: Checkpoint, tiny_sets: Path, tmp_path: Path
) -> None:
    weights, model, data = tmp_path / "weights.pt", tmp_path / "model.onnx", tmp_path / "data.toml"
    save_checkpoint(keep_weights(finished_branches), weights)
    code, output = run("onnx", "--checkpoint", weights, "--out", model)
    assert code == 0, output
    data.write_text('[classes]\nsegmentation = "voc"\n[[source]]\ntask = "segmentation"\npath = "mini_voc_seg"\n')
    code, output = run("parity", "--checkpoint", weights, "--model", model, "--data", data, "--root", tiny_sets)
    assert code == 0, output
    assert "segmentation/mean_iou" in output
    code, output = run("parity", "--checkpoint", weights, "--model", model, "--data", data)
    assert code == 1
    assert "mini_voc_seg" in output
    code, output = run("quantize", "--model", model, "--out", tmp_path / "int8.onnx", "--data", data)
    assert code == 1
    assert "mini_voc_seg" in output


def test_what_a_file_does_otherwise_than_its_preset_stands_in_its_contract_and_passes_parity(
    finished_branches: Checkpoint, tmp_path: Path
) -> None:
    checkpoint, model = tmp_path / "checkpoint.pt", tmp_path / "model.onnx"
    save_checkpoint(finished_branches, checkpoint)
    chosen = {"--input-size": 96, "--iou-threshold": 0.3, "--max-detections": 20, "--score-floor": 0.002}
    code, output = run(
        "onnx", "--checkpoint", checkpoint, "--out", model, *(str(word) for pair in chosen.items() for word in pair)
    )
    assert code == 0, output
    contract = load_engine(model).contract
    found = (contract.input_size, contract.iou_threshold, contract.max_detections, contract.score_floor)
    assert found == tuple(chosen.values())
    assert contract.version == f"tiny-{contract.weights_sha256[:12]}-input96-iou0.3-max20-floor0.002"
    assert contract.metrics == {}
    code, output = run("parity", "--checkpoint", checkpoint, "--model", model)
    assert code == 0, output


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--input-size", "100", "input_size: Input should be a multiple of 32"),
        ("--iou-threshold", "1.5", "inference.iou_threshold: Input should be less than 1"),
        ("--max-detections", "0", "inference.max_detections: Input should be greater than 0"),
        ("--max-detections", "5000", "candidates cannot fill max_detections 5000"),
        ("--score-floor", "0.5", "inference.score_floor: Input should be less than or equal to 0.01"),
        ("--score-threshold", "1.5", "inference.score_threshold: Input should be less than or equal to 1"),
    ],
)
def test_an_override_out_of_its_range_is_one_sentence_and_no_file(
    finished_branches: Checkpoint, tmp_path: Path, option: str, value: str, sentence: str
) -> None:
    save_checkpoint(finished_branches, tmp_path / "checkpoint.pt")
    code, output = run(
        "onnx", "--checkpoint", tmp_path / "checkpoint.pt", "--out", tmp_path / "model.onnx", option, value
    )
    assert code == 1
    assert sentence in output
    assert "Traceback" not in output
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("command", ["onnx", "parity"])
def test_weights_that_do_not_fit_are_one_sentence(finished: Checkpoint, tmp_path: Path, command: str) -> None:
    weights = {**finished.model, "head.predict.bias": finished.model["head.predict.bias"][:-1]}
    save_checkpoint(dataclasses.replace(finished, model=weights), tmp_path / "checkpoint.pt")
    code, output = run(command, "--checkpoint", tmp_path / "checkpoint.pt")
    assert code == 1
    assert "do not fit the network and classes of this version: size mismatch for head.predict.bias" in output
    assert "Traceback" not in output


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
