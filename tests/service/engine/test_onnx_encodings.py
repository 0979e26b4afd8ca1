"""One reader of protocol buffers sees what another does not: nothing foreign may hide behind the spelling of a tag.

ONNX Runtime as it comes is the oracle: a model that runs there with what was hidden in it must have been refused here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnxruntime as ort
import pytest

from service.engine.onnx_file import inspect_onnx
from service.engine.session import OnnxSession
from service.errors import ContractError

SECRET = bytes(range(65, 97))
HALVES = 16  # float32 numbers as long as two secrets

# Given a field's number and value: the field, its tag spelt in one of many ways.
Write: TypeAlias = Callable[[int, bytes | int], bytes]


def varint(value: int, length: int = 1) -> bytes:
    """At least so many bytes: padded ones say nothing."""
    found = b""
    while value > 127 or len(found) < length - 1:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


def write(number: int, value: bytes | int, spell: Callable[[int], bytes] = varint) -> bytes:
    if isinstance(value, int):
        return spell(number << 3) + varint(value)
    return spell(number << 3 | 2) + varint(len(value)) + value


def write_as_group(number: int, value: bytes | int) -> bytes:
    return write(number, value) if isinstance(value, int) else varint(number << 3 | 3) + value + varint(number << 3 | 4)


def write_in_group(number: int, value: bytes | int) -> bytes:
    return varint(999 << 3 | 3) + write(number, value) + varint(999 << 3 | 4)


def pad(length: int) -> Write:
    return partial(write, spell=lambda key: varint(key, length))


def lengthen(bit: int) -> Write:
    return partial(write, spell=lambda key: varint(key | 1 << bit))


SPELLINGS: dict[str, Write] = {
    **{f"{length} bytes": pad(length) for length in range(1, 11)},
    **{f"bit {bit}": lengthen(bit) for bit in (32, 33, 34, 35, 40, 48, 56, 63, 64, 69)},
    "as a group": write_as_group,
    "in a group": write_in_group,
}


def field(number: int, *values: bytes | int | str) -> bytes:
    return b"".join(write(number, value.encode() if isinstance(value, str) else value) for value in values)


def typed(name: str, kind: int, *sizes: int) -> bytes:
    shape = b"".join(field(1, field(1, size)) for size in sizes)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, shape)))


def node(operator: str, inputs: str, outputs: str, rest: bytes = b"") -> bytes:
    return field(1, *inputs.split()) + field(2, *outputs.split()) + field(4, operator) + rest


def model(graph: bytes, rest: bytes = b"", graph_field: bytes | None = None) -> bytes:
    return field(1, 8) + field(8, field(2, 17)) + rest + (field(7, graph) if graph_field is None else graph_field)


def outside(data: bytes, location: bytes) -> bytes:
    """A tensor whose values lie in a file beside the model."""
    return field(1, 32) + field(2, 2) + field(8, "s") + data + location


ENTRIES = field(1, "location") + field(2, "secret.bin")
DATA, LOCATION = field(13, ENTRIES), field(14, 1)
GIVEN = field(11, typed("c", 9)) + field(12, typed("o", 2, 32))
LOOK = field(1, node("Identity", "s", "o"))
NAME = field(2, "g")


def show_entries(spelt: Write) -> bytes:
    return model(LOOK + NAME + field(5, outside(spelt(13, ENTRIES), LOCATION)) + GIVEN)


def show_location(spelt: Write) -> bytes:
    return model(LOOK + NAME + field(5, outside(DATA, spelt(14, 1))) + GIVEN)


def show_both(spelt: Write) -> bytes:
    return model(LOOK + NAME + field(5, outside(spelt(13, ENTRIES), spelt(14, 1))) + GIVEN)


def show_initializer(spelt: Write) -> bytes:
    return model(LOOK + NAME + spelt(5, outside(DATA, LOCATION)) + GIVEN)


def show_attribute(spelt: Write) -> bytes:
    value = field(5, field(1, "value") + spelt(5, outside(DATA, LOCATION)) + field(20, 4))
    return model(field(1, node("Constant", "", "s", value)) + LOOK + NAME + GIVEN)


def show_branch(spelt: Write) -> bytes:
    branch = LOOK + NAME + field(5, outside(DATA, LOCATION)) + field(12, typed("o", 2, 32))
    attributes = (field(5, field(1, name) + spelt(6, branch) + field(20, 5)) for name in ("then_branch", "else_branch"))
    return model(field(1, node("If", "c", "o", b"".join(attributes))) + NAME + GIVEN)


def show_graph(spelt: Write) -> bytes:
    return model(b"", graph_field=spelt(7, LOOK + NAME + field(5, outside(DATA, LOCATION)) + GIVEN))


# Models that read a file; the way to the tensor is spelt oddly somewhere.
OUTSIDE = (show_entries, show_location, show_both, show_initializer, show_attribute, show_branch, show_graph)

FOREIGN = b"com.microsoft"
NUMBERS = field(11, typed("x", 1, HALVES)) + field(12, typed("o", 1, HALVES))


def show_domain(spelt: Write) -> bytes:
    calls = field(1, node("Gelu", "x", "o", spelt(7, FOREIGN)))
    return model(calls + NAME + NUMBERS, field(8, spelt(1, FOREIGN) + field(2, 1)))


def show_node(spelt: Write) -> bytes:
    calls = spelt(1, node("Gelu", "x", "o", field(7, "com.microsoft")))
    return model(calls + NAME + NUMBERS, spelt(8, field(1, "com.microsoft") + field(2, 1)))


def show_function(spelt: Write) -> bytes:
    """A function of a domain of its own, which calls; every name and every call is spelt so."""
    imports = field(9, field(2, 17)) + field(9, spelt(1, FOREIGN) + field(2, 1))
    body = spelt(7, node("Gelu", "x", "o", spelt(7, FOREIGN)))
    function = field(1, "F") + field(4, "x") + field(5, "o") + imports + spelt(10, b"mine") + body
    calls = field(1, node("F", "x", "o", spelt(7, b"mine")))
    return model(calls + NAME + NUMBERS, field(8, spelt(1, b"mine") + field(2, 1)) + spelt(25, function))


# Models that run an operator which is not ONNX's own.
OPERATORS = (show_domain, show_node, show_function)


def run_as_it_comes(body: bytes) -> list[bytes]:
    """What ONNX Runtime answers without our options; nothing where it refuses the file."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(body, options, providers=["CPUExecutionProvider"], enable_fallback=0)
        given = {"c": np.array(True), "x": np.ones(HALVES, np.float32)}
        wanted = {one.name for one in session.get_inputs()}
        found = session.run(None, {name: value for name, value in given.items() if name in wanted})
    except Exception:  # noqa: BLE001 - it raises whatever it likes, and then nothing has run
        return []
    return [bytes(one) for one in found]


def is_refused(body: bytes) -> bool:
    try:
        facts = inspect_onnx(body)
    except ContractError:
        return True
    return bool(facts.external or facts.domains - {""})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a file that no model may read."""
    (tmp_path / "secret.bin").write_bytes(SECRET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(show: Callable[[Write], bytes]) -> dict[str, bytes]:
    return {name: show(spelt) for name, spelt in SPELLINGS.items()}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("show", OUTSIDE)
def test_no_spelling_of_a_tag_hides_what_lies_outside(show: Callable[[Write], bytes]) -> None:
    """Nor does ONNX Runtime, as `service.engine.session` starts it, read what our own walk may overlook one day."""
    live = {name: body for name, body in make(show).items() if SECRET in run_as_it_comes(body)}
    assert {"1 bytes", "5 bytes"} <= set(live)  # so the test can fail
    assert [name for name, body in live.items() if not is_refused(body)] == []
    for name, body in live.items():
        with pytest.raises(ContractError, match=r"ONNX Runtime cannot load it: .*(External data path|/dev/null)"):
            OnnxSession(body, name=name)


@pytest.mark.parametrize("show", OPERATORS)
def test_no_spelling_of_a_tag_hides_foreign_operators(show: Callable[[Write], bytes]) -> None:
    live = {name: body for name, body in make(show).items() if run_as_it_comes(body)}
    assert {"1 bytes", "5 bytes"} <= set(live)
    assert [name for name, body in live.items() if not is_refused(body)] == []


@pytest.mark.parametrize("location", ["secret.bin", "./secret.bin", "../{folder}/secret.bin", "{path}/secret.bin"])
def test_no_way_of_writing_the_place_is_followed(folder: Path, location: str) -> None:
    place = location.format(folder=folder.name, path=folder)
    data = field(13, field(1, "location") + field(2, place))
    body = model(LOOK + NAME + field(5, outside(data, LOCATION)) + GIVEN)
    with pytest.raises(ContractError, match=r"ONNX Runtime cannot load it: .*(xternal data|_path)"):
        OnnxSession(body)


def test_the_runtimes_other_format_is_not_taken_for_onnx() -> None:
    body = field(2, "abORTM") + model(field(1, node("Identity", "x", "o")) + NAME + NUMBERS)
    assert body[4:8] == b"ORTM"  # by which ONNX Runtime would know it
    assert run_as_it_comes(body) == []
    assert inspect_onnx(body).domains == {""}
    with pytest.raises(ContractError, match=r"no 'unihead\.contract' in its metadata"):  # it was read as ONNX
        OnnxSession(body)


@pytest.mark.parametrize(
    "tag",
    [
        varint(0 << 3 | 2),
        varint(13 << 3 | 2, 6),
        varint(2**29 << 3 | 2),
        varint(13 << 3 | 2 | 1 << 32),
        varint(13 << 3 | 2 | 1 << 63),
    ],
)
def test_what_is_no_tag_is_refused_with_a_sentence(tag: bytes) -> None:
    with pytest.raises(ContractError, match="the number of a field is 0, or has more than 29 bits"):
        inspect_onnx(model(b"") + tag + varint(0))


@pytest.mark.parametrize("wire_type", [3, 4, 6, 7])
def test_groups_and_wire_types_that_there_are_not_are_refused(wire_type: int) -> None:
    with pytest.raises(ContractError, match="it is no protocol buffer"):
        inspect_onnx(model(b"") + varint(99 << 3 | wire_type))
