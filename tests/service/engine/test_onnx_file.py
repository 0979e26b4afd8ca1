from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.onnx_file import inspect_onnx
from service.errors import ContractError
from service.settings import Settings

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError:
    pytest.skip("onnx is not installed; it says what a file holds", allow_module_level=True)


def make_external(name: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(3, dtype=np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def serialize(graph: onnx.GraphProto, *opsets: tuple[str, int]) -> bytes:
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets]
    return bytes(helper.make_model(graph, opset_imports=imports).SerializeToString())


def test_what_the_library_reads_is_read(tiny_model: Path) -> None:
    for path in (tiny_model, Settings().model):
        facts = inspect_onnx(path.read_bytes())
        assert facts.domains == {entry.domain for entry in onnx.load(path).opset_import} == {""}
        assert facts.external == ()


def test_domains_are_found_wherever_they_hide() -> None:
    inner = helper.make_graph([helper.make_node("Steal", [], ["d"], domain="in.branch")], "inner", [], [])
    none = helper.make_graph([], "none", [], [])
    nodes = [
        helper.make_node("Steal", ["c"], ["b"], domain="on.top"),
        helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=none),
    ]
    body = [helper.make_node("Steal", ["a"], ["b"], domain="in.function")]
    imports = [helper.make_opsetid("of.function", 1)]
    function = helper.make_function("defined.here", "f", ["a"], ["b"], body, imports)
    graph = helper.make_graph(nodes, "outer", [], [])
    model = helper.make_model(graph, functions=[function], opset_imports=[helper.make_opsetid("imported", 3)])
    assert inspect_onnx(model.SerializeToString()).domains == {
        *("", "imported", "on.top", "in.branch", "defined.here", "of.function", "in.function")
    }


def test_external_tensors_are_found_wherever_they_hide() -> None:
    inner = helper.make_graph([], "inner", [], [], [make_external("in a branch")])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=make_external("in an attribute")),
        helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=helper.make_graph([], "none", [], [])),
    ]
    graph = helper.make_graph(nodes, "outer", [], [], [make_external("on top")])
    assert set(inspect_onnx(serialize(graph, ("", 18))).external) == {"on top", "in an attribute", "in a branch"}


@pytest.mark.parametrize("keep", [1, 10, 500, -1])
def test_a_file_cut_short_is_no_model(tiny_model: Path, keep: int) -> None:
    with pytest.raises(ContractError, match="is no ONNX model"):
        inspect_onnx(tiny_model.read_bytes()[:keep])


def test_endless_nesting_is_refused() -> None:
    graph = helper.make_graph([], "leaf", [], [])
    for _ in range(20):
        node = helper.make_node(
            "If", ["c"], ["d"], then_branch=graph, else_branch=helper.make_graph([], "none", [], [])
        )
        graph = helper.make_graph([node], "outer", [], [])
    with pytest.raises(ContractError, match="nested too deeply"):
        inspect_onnx(serialize(graph, ("", 18)))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(ContractError):
        inspect_onnx(body)
