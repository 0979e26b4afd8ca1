import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.parity import compare_engines, load_squares
from export.to_onnx import ExportError, Overrides, export_onnx
from service.engine.contract import METADATA_KEY, OUTPUT_NAMES, ModelContract
from service.engine.engine import load_engine
from service.engine.golden import GOLDEN_PICTURES
from training.checkpoint import Checkpoint
from training.data.taxonomy import MINI
from training.inference import build_engine, compute_weights_sha256, restore_model
from training.metrics.calibration import apply_scores

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(finished: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "sub" / "model.onnx"
    export_onnx(finished, out, golden=GOLDEN_PICTURES)
    return out


def test_the_file_holds_everything_and_nothing_is_left_beside_it(exported: Path) -> None:
    assert [path.name for path in exported.parent.iterdir()] == ["model.onnx"]
    model = onnx.load(exported, load_external_data=False)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert tuple(output.name for output in model.graph.output) == OUTPUT_NAMES


def test_the_input_is_uint8_pictures_of_any_batch_size(exported: Path) -> None:
    (images,) = onnx.load(exported).graph.input
    assert images.name == "images"
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    batch, *shape = images.type.tensor_type.shape.dim
    assert batch.dim_param
    assert [side.dim_value for side in shape] == [64, 64, 3]


def test_the_contract_says_what_the_model_is(exported: Path, finished: Checkpoint) -> None:
    contract = load_engine(exported).contract
    assert contract.name == "unihead"
    assert contract.preset == "tiny"
    assert contract.git_commit == "0123456789ab"
    assert contract.weights_sha256 == compute_weights_sha256(finished.model)
    assert contract.version == f"tiny-{contract.weights_sha256[:12]}"
    assert contract.metrics == {
        "segmentation/mean_iou": 0.25,
        "detection/map_50": 0.5,
        "classification/top_1": 0.75,
    }
    assert contract.segmentation_classes[0] == "background"
    assert contract.detection_classes[0] == "person"
    assert contract.classification_classes[3] == "chain saw"
    assert contract.score_floor <= 0.01


def test_figures_that_the_file_was_not_measured_with_are_left_out(finished: Checkpoint, tmp_path: Path) -> None:
    changed = Overrides(iou_threshold=0.3, max_detections=finished.parsed_config().inference.max_detections)
    contract = export_onnx(finished, tmp_path / "model.onnx", golden=GOLDEN_PICTURES, overrides=changed)
    assert contract.metrics == {"segmentation/mean_iou": 0.25, "classification/top_1": 0.75}
    assert contract.version == f"tiny-{contract.weights_sha256[:12]}-iou0.3"


def test_a_calibrated_file_answers_as_the_network_does_and_keeps_its_figures(
    finished_branches: Checkpoint, exported_branches: tuple[Path, ModelContract], tmp_path: Path
) -> None:
    chosen = Overrides(score_threshold=0.4, score_scale=1.7, score_bias=-0.8, class_temperature=1.6)
    contract = export_onnx(finished_branches, tmp_path / "m.onnx", golden=GOLDEN_PICTURES, overrides=chosen)
    found = (contract.score_threshold, contract.score_scale, contract.score_bias, contract.class_temperature)
    assert found == (0.4, 1.7, -0.8, 1.6)
    assert contract.version == f"tiny-{contract.weights_sha256[:12]}-threshold0.4-calibrated"
    plain, before = exported_branches
    assert contract.metrics == before.metrics
    assert len(contract.metrics) == 3
    engine, raw = load_engine(tmp_path / "m.onnx"), load_engine(plain)
    config = Overrides.of_contract(engine.contract).apply(finished_branches.parsed_config())
    reference = build_engine(restore_model(finished_branches), config, MINI, torch.device("cpu"), git_commit="0")
    squares = load_squares(sorted(GOLDEN_PICTURES.glob("*.jpg")), engine)
    assert not compare_engines(reference, engine, squares, batch_size=2).failures()
    for one, other in zip(engine.predict(squares), raw.predict(squares), strict=True):
        np.testing.assert_allclose(one.scores, apply_scores(other.scores.astype(np.float64), 1.7, -0.8), atol=1e-5)
        assert np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.mask, other.mask)


def test_no_node_tells_of_the_machine_it_was_made_on(exported: Path) -> None:
    model = onnx.load(exported)
    assert [entry.key for entry in model.metadata_props] == [METADATA_KEY]
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert str(Path(__file__).parents[2]).encode() not in exported.read_bytes()


def test_nothing_takes_the_network_out_of_the_blocked_layout_that_need_not(exported: Path) -> None:
    nodes = onnx.load(exported).graph.node
    assert not [node for node in nodes if node.op_type == "ReduceMean"]
    assert [len(node.input) for node in nodes if node.op_type == "Resize"] == [3]  # factors and no sides
    made_by = {output: node.op_type for node in nodes for output in node.output}
    first = next(node for node in nodes if node.op_type == "Conv")
    assert made_by[first.input[0]] == "Sub"
    assert not [node for node in nodes if node.op_type == "Gather" and made_by.get(node.input[0]) == "Reshape"]


def test_golden_answers_name_the_pictures_they_are_about(exported: Path) -> None:
    contract = load_engine(exported).contract
    pictures = sorted(GOLDEN_PICTURES.glob("*.jpg"))
    assert [answer.file for answer in contract.golden] == [path.name for path in pictures]
    for answer, path in zip(contract.golden, pictures, strict=True):
        assert answer.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert sum(answer.class_probs) == pytest.approx(1, abs=1e-4)
        assert sum(answer.mask_fractions.values()) == pytest.approx(1, abs=1e-4)


def test_the_contract_survives_json(exported: Path) -> None:
    contract = load_engine(exported).contract
    assert json.loads(contract.to_json())["golden"][0]["file"] == contract.golden[0].file


def test_a_file_with_branches_answers_as_the_network_does(
    finished_branches: Checkpoint, exported_branches: tuple[Path, ModelContract]
) -> None:
    exported, contract = exported_branches
    assert contract.detection_strides == (8, 16, 32)
    engine = load_engine(exported)
    config = finished_branches.parsed_config()
    reference = build_engine(
        restore_model(finished_branches), config, MINI, torch.device("cpu"), git_commit="0123456789ab"
    )
    squares = load_squares(sorted(GOLDEN_PICTURES.glob("*.jpg")), engine)
    assert not compare_engines(reference, engine, squares, batch_size=2).failures()
    assert all(len(prediction.scores) == 100 for prediction in engine.predict(squares))
    kinds = [node.op_type for node in onnx.load(exported).graph.node]
    assert kinds.count("GlobalAveragePool") > 0
    assert kinds.count("ReduceMean") == 0


def test_a_run_that_is_not_finished_is_refused(finished: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="1 of 3 stages"):
        export_onnx(dataclasses.replace(finished, stage=1), tmp_path / "model.onnx", golden=GOLDEN_PICTURES)
    assert not list(tmp_path.iterdir())


def test_a_grid_with_too_few_candidates_gives_as_many_boxes_as_there_are(finished: Checkpoint, tmp_path: Path) -> None:
    config = {**finished.config, "inference": {**finished.config["inference"], "max_detections": 1000}}
    changed = dataclasses.replace(finished, config=config)
    contract = export_onnx(changed, tmp_path / "m.onnx", golden=GOLDEN_PICTURES)
    assert contract.max_detections == 4 * 80
    assert load_engine(tmp_path / "m.onnx").contract.output_shapes["boxes"] == (320, 4)
