from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.engine.contract import METADATA_KEY, OUTPUT_NAMES
from tests.training.teachers.fakes import CPU, SIZE, make_config
from training.config import Task
from training.data.labelling.frame import Frame
from training.data.taxonomy import MINI, Taxonomy
from training.inference import make_contract
from training.teachers.imagenet import find_columns
from training.teachers.sources import open_teacher
from training.teachers.teacher import TeacherError

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8


def write_graph(
    path: Path,
    nodes: list[onnx.NodeProto],
    feed: onnx.ValueInfoProto,
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, NDArray[Any]],
    *,
    metadata: dict[str, str] | None = None,
) -> str:
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "teacher", [feed], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, metadata or {})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return str(path)


def write_classifier(path: Path, kind: int, shape: list[str | int], classes: int, axes: list[int]) -> str:
    """Write a classifier whose class c has the logit c * (red + 2 green + 3 blue) of the mean colour."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
    ]
    weights = np.outer([1, 2, 3], np.arange(classes)).astype(np.float32)
    return write_graph(
        path,
        nodes,
        helper.make_tensor_value_info("pixels", kind, shape),
        [helper.make_tensor_value_info("logits", FLOAT, [shape[0], classes])],
        {"weights": weights, "axes": np.array(axes)},
    )


def plain_images(*colours: tuple[int, int, int], size: int) -> torch.Tensor:
    return torch.tensor(colours, dtype=torch.uint8)[:, None, None].expand(-1, size, size, -1).contiguous()


COLOURS = ((10, 20, 30), (200, 100, 0), (0, 0, 255))


@pytest.mark.parametrize(("batch", "side", "size"), [("n", 16, 16), (1, 16, 16), ("n", "s", 224), (1, "s", 224)])
def test_float_files_get_normalised_pictures_channels_first(
    tmp_path: Path, batch: str | int, side: str | int, size: int
) -> None:
    source = write_classifier(tmp_path / "c.onnx", FLOAT, [batch, 3, side, side], 10, [2, 3])
    teacher = open_teacher(source, Task.CLASSIFICATION, device=CPU, taxonomy=MINI)
    assert teacher.frame == Frame(size, size, letterboxed=False)
    normalised = (np.array(COLOURS) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    expected = np.outer(normalised @ [1, 2, 3], np.arange(10))
    np.testing.assert_allclose(teacher.answer(plain_images(*COLOURS, size=size)), expected, rtol=1e-3)


def test_byte_files_get_pictures_as_they_are_and_are_cut_to_ten(tmp_path: Path) -> None:
    source = write_classifier(tmp_path / "c.onnx", UINT8, ["n", 32, 32, 3], 1000, [1, 2])
    teacher = open_teacher(source, Task.CLASSIFICATION, device=CPU, taxonomy=MINI)
    assert teacher.frame.height == 32
    expected = np.outer(np.array(COLOURS) @ [1, 2, 3], find_columns(MINI))
    np.testing.assert_allclose(teacher.answer(plain_images(*COLOURS, size=32)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (FLOAT, ["n", 16, 16, 3]),
        (UINT8, ["n", 3, 16, 16]),
        (FLOAT, ["n", 1, 16, 16]),
        (FLOAT, ["n", 3, 16, 24]),
        (FLOAT, [4, 3, 16, 16]),
        (TensorProto.DOUBLE, ["n", 3, 16, 16]),
    ],
)
def test_inputs_that_are_no_pictures_are_refused(tmp_path: Path, kind: int, shape: list[str | int]) -> None:
    nodes = [helper.make_node("Cast", ["pixels"], ["logits"], to=FLOAT)]
    feed = helper.make_tensor_value_info("pixels", kind, shape)
    output = helper.make_tensor_value_info("logits", FLOAT, shape)
    source = write_graph(tmp_path / "c.onnx", nodes, feed, [output], {})
    with pytest.raises(TeacherError, match=r"c\.onnx: it has pixels tensor.* wanted one input"):
        open_teacher(source, Task.CLASSIFICATION, device=CPU, taxonomy=MINI)


def test_a_file_with_two_outputs_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["pixels"], [name]) for name in ("a", "b")]
    infos = [helper.make_tensor_value_info(name, FLOAT, ["n", 3, 16, 16]) for name in ("pixels", "a", "b")]
    source = write_graph(tmp_path / "c.onnx", nodes, infos[0], infos[1:], {})
    with pytest.raises(TeacherError, match="one output"):
        open_teacher(source, Task.CLASSIFICATION, device=CPU, taxonomy=MINI)


def test_other_numbers_of_classes_are_refused(tmp_path: Path) -> None:
    source = write_classifier(tmp_path / "c.onnx", FLOAT, ["n", 3, 16, 16], 21, [2, 3])
    teacher = open_teacher(source, Task.CLASSIFICATION, device=CPU, taxonomy=MINI)
    with pytest.raises(TeacherError, match=r"gave \(1, 21\)"):
        teacher.answer(plain_images(COLOURS[0], size=16))


def test_a_strange_file_teaches_only_classification(tmp_path: Path) -> None:
    source = write_classifier(tmp_path / "c.onnx", FLOAT, ["n", 3, 16, 16], 10, [2, 3])
    with pytest.raises(TeacherError, match="only teach classification"):
        open_teacher(source, Task.SEGMENTATION, device=CPU, taxonomy=MINI)


def test_what_is_no_model_is_no_teacher(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("weights")
    for name in ("text.onnx", "missing.onnx"):
        with pytest.raises(TeacherError, match=name):
            open_teacher(str(tmp_path / name), Task.CLASSIFICATION, device=CPU, taxonomy=MINI)


def write_exported(path: Path, probs: NDArray[np.float32], contract: str) -> str:
    """Write a file like our own: the mask is the red of every fourth pixel, everything else is always the same."""
    constants: dict[str, NDArray[Any]] = {
        "starts": np.array([0, 0, 0, 0]),
        "ends": np.array([2**31, SIZE, SIZE, 1]),
        "axes": np.array([0, 1, 2, 3]),
        "steps": np.array([1, 4, 4, 1]),
        "last": np.array([3]),
    }
    most = make_config().inference.max_detections
    values: dict[str, NDArray[Any]] = {
        "boxes": np.zeros((1, most, 4), np.float32),
        "scores": np.zeros((1, most), np.float32),
        "labels": np.zeros((1, most), np.int64),
        "num_detections": np.zeros(1, np.int64),
        "class_probs": probs,
    }
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value)) for name, value in values.items()
    ]
    nodes.append(helper.make_node("Slice", ["images", "starts", "ends", "axes", "steps"], ["red"]))
    nodes.append(helper.make_node("Squeeze", ["red", "last"], ["mask"]))
    shapes = {name: (helper.np_dtype_to_tensor_dtype(value.dtype), value.shape) for name, value in values.items()}
    shapes["mask"] = (UINT8, (1, SIZE // 4, SIZE // 4))
    outputs = [helper.make_tensor_value_info(name, *shapes[name]) for name in OUTPUT_NAMES]
    feed = helper.make_tensor_value_info("images", UINT8, [1, SIZE, SIZE, 3])
    return write_graph(path, nodes, feed, outputs, constants, metadata={METADATA_KEY: contract})


PROBS = np.array([[0.5, 0.25, 0.25, 0, 0, 0, 0, 0, 0, 0]], dtype=np.float32)


@pytest.fixture
def exported(tmp_path: Path) -> str:
    contract = make_contract(make_config(), MINI, {"weight": torch.zeros(1)}, git_commit="unknown")
    return write_exported(tmp_path / "unihead.onnx", PROBS, contract.to_json())


def test_an_exported_file_teaches_its_probabilities(exported: str) -> None:
    teacher = open_teacher(exported, Task.CLASSIFICATION, device=CPU, taxonomy=MINI)
    assert teacher.frame == Frame(SIZE, SIZE, letterboxed=True)
    logits = teacher.answer(torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8))
    assert logits.isfinite().all()
    np.testing.assert_allclose(logits.softmax(dim=1), PROBS, atol=1e-4)


def test_an_exported_file_teaches_its_masks_almost_surely(exported: str) -> None:
    teacher = open_teacher(exported, Task.SEGMENTATION, device=CPU, taxonomy=MINI)
    images = torch.randint(0, 21, (1, SIZE, SIZE, 3), dtype=torch.uint8, generator=torch.manual_seed(0))
    probs = teacher.answer(images).softmax(dim=1)
    assert probs.shape == (1, 21, SIZE // 4, SIZE // 4)
    assert torch.equal(probs.argmax(dim=1), images[:, ::4, ::4, 0].long())
    assert probs.amax(dim=1).min() > 0.99


def test_an_exported_file_is_read_by_the_names_of_its_classes(exported: str) -> None:
    taxonomy = Taxonomy(MINI.segmentation[::-1], classification=("cassette player", "tench"))
    images = torch.randint(0, 21, (1, SIZE, SIZE, 3), dtype=torch.uint8, generator=torch.manual_seed(0))
    masks = open_teacher(exported, Task.SEGMENTATION, device=CPU, taxonomy=taxonomy).answer(images)
    assert torch.equal(masks.argmax(dim=1), 20 - images[:, ::4, ::4, 0].long())
    classes = open_teacher(exported, Task.CLASSIFICATION, device=CPU, taxonomy=taxonomy).answer(images)
    np.testing.assert_allclose(classes.exp(), [[0.25, 0.5]], atol=1e-6)


def test_an_exported_file_does_not_teach_detection(exported: str) -> None:
    with pytest.raises(TeacherError, match="a checkpoint does"):
        open_teacher(exported, Task.DETECTION, device=CPU, taxonomy=MINI)


def test_an_exported_file_with_other_classes_is_refused(tmp_path: Path) -> None:
    contract = make_contract(make_config(), MINI, {"weight": torch.zeros(1)}, git_commit="unknown")
    source = write_exported(tmp_path / "other.onnx", PROBS, contract.to_json().replace('"tench"', '"trout"'))
    with pytest.raises(TeacherError, match="other classes"):
        open_teacher(source, Task.CLASSIFICATION, device=CPU, taxonomy=MINI)


def test_an_exported_file_with_a_contract_of_no_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="contract"):
        open_teacher(write_exported(tmp_path / "bad.onnx", PROBS, "{}"), Task.CLASSIFICATION, device=CPU, taxonomy=MINI)
