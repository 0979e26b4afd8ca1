"""Model files that are wrong in one way each, and what is said about them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from service.engine.contract import METADATA_KEY
from service.engine.engine import Engine
from service.engine.golden import answer_golden
from tests.service.fakes import FakeSession, make_contract
from tests.service.onnx_models import write_tiny_model

try:
    import onnx
    from onnx import NodeProto, TensorProto, helper, numpy_helper
except ImportError:
    pytest.skip("onnx is not installed; it builds model files", allow_module_level=True)

Harm: TypeAlias = Callable[[Path], object]
GOLDEN = answer_golden(Engine(FakeSession(), make_contract()))


def write_model(path: Path, version: str, **changes: Any) -> Path:  # noqa: ANN401 - fields of the contract
    """Write a good model beside its place and move it there, as people should."""
    temporary = path.with_suffix(".new")
    write_tiny_model(temporary, make_contract(**{"version": version, "golden": GOLDEN, **changes}))
    if path.is_dir():
        path.rmdir()
    return temporary.replace(path)


def rewrite(path: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())


def cut(path: Path, tenths: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * tenths // 10 + 1])


def move_weights_out(path: Path, place: Callable[[Path, bytes], object], location: str) -> None:
    """Leave a weight out of the file, and put it where ONNX Runtime would find it."""
    model = onnx.load(path)
    (sharpness,) = (tensor for tensor in model.graph.initializer if tensor.name == "sharpness")
    place(path.parent / "weights.bin", sharpness.raw_data)
    sharpness.ClearField("raw_data")
    sharpness.data_location = TensorProto.EXTERNAL
    sharpness.external_data.add(key="location", value=location.format(folder=path.parent))
    path.write_bytes(model.SerializeToString())


def write_behind_link(path: Path, content: bytes, link: Callable[[Path, Path], None]) -> None:
    elsewhere = path.with_name("elsewhere.bin")
    elsewhere.write_bytes(content)
    link(elsewhere, path)


def set_weight(value: float) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        (sharpness,) = (tensor for tensor in model.graph.initializer if tensor.name == "sharpness")
        sharpness.CopyFrom(numpy_helper.from_array(np.array(value, dtype=np.float32), "sharpness"))

    return change


def give_doubles(model: onnx.ModelProto) -> None:
    (node,) = (node for node in model.graph.node if "scores" in node.output)
    node.output[0] = "scores_float"
    model.graph.node.append(helper.make_node("Cast", ["scores_float"], ["scores"], to=TensorProto.DOUBLE))
    (scores,) = (output for output in model.graph.output if output.name == "scores")
    scores.type.tensor_type.elem_type = TensorProto.DOUBLE


def make_foreign_node() -> NodeProto:
    return helper.make_node("Steal", ["images"], ["stolen"], domain="com.evil")


def branch_off(model: onnx.ModelProto) -> None:
    stolen = helper.make_tensor_value_info("stolen", TensorProto.UINT8, None)
    branch = helper.make_graph([make_foreign_node()], "branch", [], [stolen])
    model.graph.node.append(helper.make_node("If", ["is_red"], ["taken"], then_branch=branch, else_branch=branch))


def define_function(model: onnx.ModelProto) -> None:
    imports = [helper.make_opsetid("com.evil", 1)]
    model.functions.append(helper.make_function("", "Abs", ["images"], ["stolen"], [make_foreign_node()], imports))


def replace_file(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def set_contract(path: Path, text: str) -> None:
    rewrite(path, lambda model: helper.set_model_props(model, {METADATA_KEY: text}))


def change_contract(path: Path, **changes: object) -> None:
    set_contract(path, json.dumps({**json.loads(make_contract(golden=GOLDEN).to_json()), **changes}))


THREE_SIDES = replace(GOLDEN[0].detections[0], box=(0.0, 0.0, 9.0))  # type: ignore[arg-type]  # a side is missing
OUTSIDE, FOREIGN, OTHERWISE = "1 tensors lie in other files", "operators of com.evil", "answers otherwise than its file"
BAD_MODELS: dict[str, tuple[Harm, str]] = {
    "gone": (lambda path: path.unlink(), "cannot be read"),
    "a folder": (lambda path: replace_file(path, Path.mkdir), "it is a directory, and has to be a regular file"),
    "a pipe": (lambda path: replace_file(path, os.mkfifo), "it is a FIFO, and has to be"),
    "a device": (
        lambda path: replace_file(path, lambda path: path.symlink_to("/dev/zero")),
        "it is a character device",
    ),
    "a link to nothing": (lambda path: replace_file(path, lambda path: path.symlink_to("none")), "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "has 0 bytes"),
    "text": (lambda path: path.write_text("hello"), "is no ONNX model"),
    **{f"cut after {tenths} tenths": (partial(cut, tenths=tenths), "") for tenths in range(10)},
    "cut at the end": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is no ONNX model"),
    "no contract": (lambda path: write_tiny_model(path, None), "in its metadata"),
    "a contract that is no JSON": (lambda path: set_contract(path, "{"), "contract cannot be read"),
    "a contract without classes": (lambda path: set_contract(path, "{}"), "contract cannot be read"),
    "a contract with a number for a name": (
        lambda path: change_contract(path, version=5),
        "version must be str; got 5",
    ),
    "a contract with a word for a number": (
        lambda path: change_contract(path, max_detections="4"),
        "max_detections must be int; got '4'",
    ),
    "a contract with one long name for many": (
        lambda path: change_contract(path, detection_classes="person"),
        "detection_classes must be names",
    ),
    "a golden box with three sides": (
        lambda path: write_model(path, "new", golden=(replace(GOLDEN[0], detections=(THREE_SIDES,)),)),
        "contract cannot be read",
    ),
    "another format of contract": (
        lambda path: set_contract(path, make_contract().to_json().replace('"format_version":1', '"format_version":9')),
        "contract format is 9",
    ),
    "outputs missing": (
        lambda path: write_tiny_model(path, make_contract(golden=GOLDEN), outputs=slice(0, 5)),
        "the contract lists",
    ),
    "another size than its contract says": (lambda path: write_model(path, "new", input_size=64), "has the shape"),
    "more classes than it has": (
        lambda path: write_model(path, "new", classification_classes=("red", "green", "blue", "grey")),
        "class_probs has the shape",
    ),
    "another element type": (lambda path: rewrite(path, give_doubles), "scores is tensor(double), not tensor(float)"),
    "weights in a file beside it": (
        lambda path: move_weights_out(path, Path.write_bytes, "weights.bin"),
        OUTSIDE,
    ),
    "weights behind an absolute path": (
        lambda path: move_weights_out(path, Path.write_bytes, "{folder}/weights.bin"),
        OUTSIDE,
    ),
    "weights further up": (
        lambda path: move_weights_out(path, Path.write_bytes, "../../../../../../../../etc/passwd"),
        OUTSIDE,
    ),
    "weights behind a symbolic link": (
        lambda path: move_weights_out(path, partial(write_behind_link, link=os.symlink), "weights.bin"),
        OUTSIDE,
    ),
    "weights behind a hard link": (
        lambda path: move_weights_out(path, partial(write_behind_link, link=os.link), "weights.bin"),
        OUTSIDE,
    ),
    "foreign operators imported": (
        lambda path: rewrite(path, lambda model: model.opset_import.append(helper.make_opsetid("com.evil", 1))),
        FOREIGN,
    ),
    "a foreign operator": (
        lambda path: rewrite(path, lambda model: model.graph.node.append(make_foreign_node())),
        FOREIGN,
    ),
    "a foreign operator in a branch": (lambda path: rewrite(path, branch_off), FOREIGN),
    "a foreign operator in a function": (lambda path: rewrite(path, define_function), FOREIGN),
    "unknown operator set": (
        lambda path: rewrite(path, lambda model: setattr(model.opset_import[0], "version", 999)),
        "ONNX Runtime cannot load it",
    ),
    "another weight": (lambda path: rewrite(path, set_weight(1 / 3)), OTHERWISE),
    "a weight that is no number": (lambda path: rewrite(path, set_weight(np.nan)), "values that are no finite numbers"),
    # A blank picture is answered, any other is too much.
    "a weight beyond measure": (lambda path: rewrite(path, set_weight(3e38)), "values that are no finite numbers"),
    "no golden answers": (lambda path: write_tiny_model(path, make_contract()), "carries no answers"),
}
# The start takes a file that says nothing about the golden pictures, with a warning: somebody has chosen it.
BAD_AT_START = sorted(set(BAD_MODELS) - {"no golden answers"})
