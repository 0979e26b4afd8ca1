from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from typer.testing import CliRunner

from export.cli import app
from export.quantize import QuantizationError, choose_convolutions, compare_times, find_objections, quantize
from service.engine.contract import ModelContract
from service.engine.engine import Engine, load_engine
from service.engine.golden import GOLDEN_PICTURES, check_golden
from service.engine.onnx_file import inspect_onnx
from service.pictures.imaging import UInt8Array
from tests.service.fakes import FakeSession, make_contract

GOOD = {"segmentation/mean_iou": (0.4, 0.395), "detection/map_50": (0.1, 0.12), "classification/top_1": (0.9, 0.9)}


@pytest.fixture
def exported(exported_branches: tuple[Path, ModelContract]) -> Path:
    return exported_branches[0]


def make_squares(engine: Engine, count: int) -> list[UInt8Array]:
    size = engine.contract.input_size
    return list(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


@pytest.mark.slow
def test_neck_and_branches_are_quantised_and_the_file_still_knows_what_it_is(exported: Path, tmp_path: Path) -> None:
    reference = load_engine(exported, threads=1)
    squares = make_squares(reference, 4)
    names = quantize(exported, tmp_path / "int8.onnx", squares)
    assert names
    assert all(name.startswith(("model.neck.", "model.head.")) for name in names)
    proto = onnx.load(tmp_path / "int8.onnx")
    assert {node.op_type for node in proto.graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
    assert inspect_onnx((tmp_path / "int8.onnx").read_bytes()).domains == {""}
    engine = load_engine(tmp_path / "int8.onnx", threads=1)
    assert engine.contract.version == f"{reference.contract.version}-int8"
    check_golden(engine)
    for one, two in zip(reference.predict(squares), engine.predict(squares), strict=True):
        np.testing.assert_allclose(one.class_probs, two.class_probs, atol=1e-5)  # its branch stays in float32


@pytest.mark.slow
def test_calibration_needs_pictures(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="needs training pictures"):
        quantize(exported, tmp_path / "int8.onnx", [])


def make_conv(weights: str, out_channels: int, in_channels: int, side: int) -> tuple[onnx.NodeProto, onnx.TensorProto]:
    values = np.zeros((out_channels, in_channels, side, side), dtype=np.float32)
    node = helper.make_node("Conv", ["x", weights], ["y"], name=f"conv of {weights}")
    return node, numpy_helper.from_array(values, weights)


def test_backbone_tail_depthwise_and_thin_convolutions_stay() -> None:
    convs = [
        make_conv("model.backbone.3.block.0.0.weight", 96, 96, 1),
        make_conv("model.head.classification.tail.0.weight", 96, 96, 1),
        make_conv("model.neck.smooth.0.0.weight", 96, 1, 3),
        make_conv("model.head.detection.boxes.weight", 4, 96, 1),
        make_conv("model.head.detection.scores.weight", 80, 96, 1),
    ]
    graph = helper.make_graph([node for node, _ in convs], "g", [], [], [tensor for _, tensor in convs])
    assert list(choose_convolutions(helper.make_model(graph)).values()) == ["model.head.detection.scores.weight"]


@pytest.mark.slow
def test_a_file_with_nothing_to_quantise_is_refused(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.quantize.choose_convolutions", lambda _: {})
    with pytest.raises(QuantizationError, match=r"has no 1 x 1 convolutions in its neck"):
        quantize(exported, tmp_path / "int8.onnx", make_squares(load_engine(exported), 1))


def test_the_shipped_file_has_convolutions_to_quantise() -> None:
    assert len(choose_convolutions(onnx.load(GOLDEN_PICTURES.parent / "unihead.onnx"))) >= 10


def test_a_good_file_has_no_objections() -> None:
    assert find_objections(GOOD, (10.0, 9.0)) == []


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("after", [0.0, float("nan")])
def test_each_metric_is_guarded(name: str, after: float) -> None:
    (objection,) = find_objections({**GOOD, name: (GOOD[name][0], after)}, (10.0, 9.0))
    assert objection.startswith(f"{name} falls from")


def test_a_file_that_is_no_faster_is_refused() -> None:
    assert find_objections(GOOD, (10.0, 10.0)) == ["a pass takes 10.00 ms, no less than 10.00"]


def test_times_are_measured_in_turns() -> None:
    order: list[str] = []

    class Noting(FakeSession):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
            order.append(self.name)
            return super().run(images)

    one, two = (Engine(Noting(name), make_contract()) for name in "ab")
    assert all(ms > 0 for ms in compare_times(one, two, make_squares(one, 2), passes=6))
    assert "".join(order) == "ab" * 11


@pytest.mark.slow
def test_the_command_judges_and_leaves_nothing_behind_when_it_refuses(
    exported: Path, tiny_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["quantize", "--data", str(tiny_sets), "--model", str(exported), "--out", str(tmp_path / "int8.onnx")]
    monkeypatch.setattr("export.cli.compare_times", lambda *_: (10.0, 11.0))
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 1, result.output
    assert "refused: a pass takes 11.00 ms" in result.output
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("export.cli.find_objections", lambda *_: [])
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "convolutions in int8" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]
