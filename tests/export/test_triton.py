from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import onnx
import pytest
from google.protobuf import text_format
from typer.testing import CliRunner

from export.cli import app
from export.triton import write_repository
from service.engine.contract import ModelContract, ModelTask
from service.engine.engine import load_engine
from service.settings import Settings
from tests.service.fakes import make_contract
from tests.service.onnx_models import write_tiny_model
from tests.service.subsets import SUBSETS, outputs_of
from tests.triton_types import model_config_pb2

MODEL = Settings().model
ModelConfig: TypeAlias = Any  # a class that is loaded from its file
KINDS: dict[int, str] = {
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.INT64: "TYPE_INT64",
    onnx.TensorProto.UINT8: "TYPE_UINT8",
}


@pytest.fixture(scope="module")
def contract() -> ModelContract:
    return load_engine(MODEL, threads=1).contract


@pytest.fixture
def config(tmp_path: Path) -> ModelConfig:
    write_repository(MODEL, tmp_path, name="unihead", max_batch=4, max_delay_us=50)
    return text_format.Parse((tmp_path / "unihead/config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def test_the_repository_has_what_triton_looks_for(tmp_path: Path, contract: ModelContract) -> None:
    write_repository(MODEL, tmp_path, name="eyes", max_batch=4, max_delay_us=50)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["eyes/1/model.onnx", "eyes/classes.txt", "eyes/config.pbtxt"]
    assert (tmp_path / "eyes/1/model.onnx").read_bytes() == MODEL.read_bytes()
    assert (tmp_path / "eyes/classes.txt").read_text().splitlines() == list(contract.classification_classes)


def test_the_configuration_is_of_tritons_own_type(config: ModelConfig) -> None:
    assert (config.name, config.backend, config.max_batch_size) == ("unihead", "onnxruntime", 4)
    assert config.dynamic_batching.max_queue_delay_microseconds == 50
    (warm_up,) = config.model_warmup
    assert warm_up.inputs["images"].zero_data
    assert list(warm_up.inputs["images"].dims) == list(config.input[0].dims)


def test_tensors_are_those_of_the_graph(config: ModelConfig) -> None:
    graph = onnx.load(MODEL).graph
    declared = {one.name: one for one in (*config.input, *config.output)}
    assert [*declared] == [value.name for value in (*graph.input, *graph.output)]
    for value in (*graph.input, *graph.output):
        one, tensor = declared[value.name], value.type.tensor_type
        assert model_config_pb2.DataType.Name(one.data_type) == KINDS[tensor.elem_type]
        shape = one.reshape.shape if one.HasField("reshape") else one.dims
        assert list(shape) == [side.dim_value for side in tensor.shape.dim[1:]]


def test_the_command_says_what_it_wrote_or_why_not(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["triton", "--model", str(MODEL), "--out", str(tmp_path / "repository")])
    assert done.exit_code == 0
    assert "default-" in done.output
    (tmp_path / "none.onnx").write_bytes(b"nothing")
    failed = CliRunner().invoke(app, ["triton", "--model", str(tmp_path / "none.onnx"), "--out", str(tmp_path)])
    assert failed.exit_code == 1


@pytest.mark.parametrize("tasks", SUBSETS, ids="+".join)
def test_a_model_of_fewer_tasks_has_the_outputs_of_these(tmp_path: Path, tasks: tuple[ModelTask, ...]) -> None:
    model = write_tiny_model(tmp_path / "model.onnx", make_contract(tasks=tasks))
    write_repository(model, tmp_path, name="eyes", max_batch=4, max_delay_us=50)
    config = text_format.Parse((tmp_path / "eyes/config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert [output.name for output in config.output] == outputs_of(tasks)
    assert [output.label_filename for output in config.output if output.label_filename] == (
        ["classes.txt"] if "classify" in tasks else []
    )
    assert (tmp_path / "eyes/classes.txt").exists() == ("classify" in tasks)
