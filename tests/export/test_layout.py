from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from export.layout import fold_input_scale, pool_by_means, pool_globally, upsample_by_factors

IMAGES = np.random.default_rng(0).random((2, 5, 4, 6), dtype=np.float32)


def build(
    nodes: list[onnx.NodeProto], outputs: dict[str, list[str | int]], constants: dict[str, NDArray[np.generic]]
) -> onnx.ModelProto:
    """A graph that reads `images`, [N, 5, 4, 6]."""
    graph = helper.make_graph(
        nodes,
        "layout",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", *IMAGES.shape[1:]])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto) -> list[NDArray[np.float32]]:
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(values) for values in session.run(None, {"images": IMAGES})]


def assert_same(before: list[NDArray[np.float32]], after: list[NDArray[np.float32]]) -> None:
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
def test_means_over_height_and_width_become_pooling_and_others_stay(keepdims: int, axes: list[int]) -> None:
    model = build(
        [
            helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=keepdims),
            helper.make_node("ReduceMean", ["images", "channel"], ["other"]),
        ],
        {"means": ["N", 5, 1, 1] if keepdims else ["N", 5], "other": ["N", 1, 4, 6]},
        {"axes": np.array(axes, dtype=np.int64), "channel": np.array([1], dtype=np.int64)},
    )
    before = run(model)
    pool_globally(model)
    assert_same(before, run(model))
    assert (kinds(model).count("GlobalAveragePool"), kinds(model).count("ReduceMean")) == (1, 1)


def test_poolings_become_means_in_a_copy() -> None:
    network = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.AdaptiveAvgPool2d((1, 1))), nn.AdaptiveAvgPool2d(2)
    )
    pictures = torch.from_numpy(IMAGES)
    copied = pool_by_means(network[:2])
    torch.testing.assert_close(copied(pictures), network[:2](pictures))
    assert not any(isinstance(module, nn.AdaptiveAvgPool2d) for module in copied.modules())
    assert isinstance(network[0], nn.AdaptiveAvgPool2d)
    assert isinstance(pool_by_means(network)[2], nn.AdaptiveAvgPool2d)


def resize(sides: list[int], **attributes: str) -> onnx.ModelProto:
    """A Resize to fixed sides, joined with the batch size at run time as torch's exporter does."""
    nodes = [
        helper.make_node("Shape", ["images"], ["batch"], start=0, end=2),
        helper.make_node("Concat", ["batch", "sides"], ["sizes"], axis=0),
        helper.make_node("Resize", ["images", "", "", "sizes"], ["resized"], mode="linear", **attributes),
    ]
    return build(nodes, {"resized": ["N", 5, *sides]}, {"sides": np.array(sides, dtype=np.int64)})


@pytest.mark.parametrize("sides", [[8, 12], [4, 18], [12, 6]])
def test_whole_factors_take_the_place_of_sides(sides: list[int]) -> None:
    model = resize(sides)
    before = run(model)
    upsample_by_factors(model)
    assert_same(before, run(model))
    assert kinds(model) == ["Resize"]
    (factors,) = model.graph.initializer
    assert numpy_helper.to_array(factors).tolist() == [1, 1, sides[0] / 4, sides[1] / 6]


@pytest.mark.parametrize("sides", [[7, 12], [8, 13], [2, 3]])
def test_other_factors_stay_sides(sides: list[int]) -> None:
    model = resize(sides)
    before = run(model)
    upsample_by_factors(model)
    assert_same(before, run(model))
    assert kinds(model) == ["Shape", "Concat", "Resize"]


def scaled_convolution(scale: NDArray[np.float32], *, group: int = 1) -> onnx.ModelProto:
    weights = np.random.default_rng(1).random((10, 5 // group, 3, 3), dtype=np.float32)
    nodes = [
        helper.make_node("Div", ["images", "scale"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "weights"], ["seen"], pads=[1, 1, 1, 1], group=group),
    ]
    return build(nodes, {"seen": ["N", 10, 4, 6]}, {"scale": scale, "weights": weights})


def test_a_division_of_channels_goes_into_the_weights() -> None:
    model = scaled_convolution(np.array([1, 2, 3, 4, 5], dtype=np.float32).reshape(1, 5, 1, 1))
    before = run(model)
    fold_input_scale(model)
    assert_same(before, run(model))
    assert kinds(model) == ["Conv"]
    assert [tensor.name for tensor in model.graph.initializer] == ["weights_scaled"]


@pytest.mark.parametrize("shape", [(1, 1, 4, 6), (6,), (1, 5, 4, 6)])
def test_a_division_of_places_stays(shape: tuple[int, ...]) -> None:
    model = scaled_convolution(np.random.default_rng(2).uniform(1, 2, shape).astype(np.float32))
    before = run(model)
    fold_input_scale(model)
    assert_same(before, run(model))
    assert kinds(model) == ["Div", "Conv"]


def test_a_division_before_a_grouped_convolution_stays() -> None:
    model = scaled_convolution(np.array([1, 2, 3, 4, 5], dtype=np.float32).reshape(1, 5, 1, 1), group=5)
    before = run(model)
    fold_input_scale(model)
    assert_same(before, run(model))
    assert kinds(model) == ["Div", "Conv"]


def test_a_division_that_others_read_stays() -> None:
    model = scaled_convolution(np.array([1, 2, 3, 4, 5], dtype=np.float32).reshape(1, 5, 1, 1))
    model.graph.output.append(helper.make_tensor_value_info("scaled", TensorProto.FLOAT, ["N", 5, 4, 6]))
    before = run(model)
    fold_input_scale(model)
    assert_same(before, run(model))
    assert kinds(model) == ["Div", "Conv"]
