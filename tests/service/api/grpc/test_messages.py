"""Inference requests and responses as bytes: numbers of fields held against other clients', bombs, broken ones."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.grpc import open_inference_pb2 as ours
from service.api.grpc.messages import MOST_WORDS_BYTES, read_request, walk, write_response
from service.api.oip.tensors import InputSpec, encode
from service.api.oip.wire import InferRequest
from service.errors import MalformedRequest, UniheadError, UnknownModel
from tests.attacks.calls import make_bombs, make_messages, make_requests, varint
from tests.grpc_service import load_triton
from tests.service.api.grpc.asking import METHODS

SPECS = {"image": InputSpec("BYTES", (), 4), "images": InputSpec("UINT8", (2, 2, 3), 4)}


def load_kserve() -> Any:  # noqa: ANN401 - it has no types
    """KServe's messages, without all else that KServe imports."""
    (folder,) = importlib.util.find_spec("kserve").submodule_search_locations  # type: ignore[union-attr,misc]  # it is installed
    spec = importlib.util.spec_from_file_location("kserve_pb2", Path(folder) / "protocol/grpc/grpc_predict_v2_pb2.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def describe(message: Any, fields: dict[str, str], name: str = "") -> dict[str, str]:  # noqa: ANN401 - a descriptor
    """Number, type and repetition of each field, nested ones too."""
    for field in message.fields:
        kind = field.message_type.name if field.message_type else field.type
        fields[f"{name}{message.name}.{field.name}"] = f"{field.number} {kind} {field.is_repeated}"
    for nested in message.nested_types:
        describe(nested, fields, f"{name}{message.name}.")
    return fields


@pytest.mark.parametrize("load", [lambda: load_triton().service_pb2, load_kserve], ids=["triton", "kserve"])
def test_messages_are_those_of_other_clients(load: Any) -> None:  # noqa: ANN401 - see above
    theirs, fields = load(), dict[str, str]()
    for name in METHODS:
        for message in (f"{name}Request", f"{name}Response"):
            describe(getattr(theirs, message).DESCRIPTOR, fields)
            assert describe(getattr(ours, message).DESCRIPTOR, {}).items() <= fields.items()
    known = describe(theirs.InferParameter.DESCRIPTOR, {})
    assert known.items() <= describe(ours.InferParameter.DESCRIPTOR, {}).items()
    contents = [describe(one.InferTensorContents.DESCRIPTOR, {}) for one in (ours, theirs)]
    assert contents[0] == contents[1]


def request(**changes: Any) -> ours.ModelInferRequest:  # noqa: ANN401 - fields
    message = ours.ModelInferRequest(**{"model_name": "unihead", "id": "7", **changes})
    if not message.inputs:
        message.inputs.add(name="images", datatype="UINT8", shape=[1, 2, 2, 3])
    return message


def read(message: ours.ModelInferRequest | bytes) -> InferRequest:
    return read_request(walk(message if isinstance(message, bytes) else message.SerializeToString()), SPECS)


def test_the_networks_input_is_read_from_bytes_and_from_numbers() -> None:
    values = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    raw = read(request(raw_input_contents=[values.tobytes()]))
    message = request()
    message.inputs[0].contents.uint_contents.extend(values.ravel().tolist())
    for asked in (raw, read(message)):
        np.testing.assert_array_equal(np.asarray(asked.values), values)
        assert (asked.input, asked.id, asked.outputs, asked.binary) == ("images", "7", {}, True)


def test_every_number_is_read_as_it_was_written() -> None:
    values = np.arange(256, dtype=np.uint8)
    contents = ours.InferTensorContents(uint_contents=values.tolist()).SerializeToString()
    wide = {"images": InputSpec("UINT8", (256,), 1)}
    head = request(inputs=[{"name": "images", "datatype": "UINT8", "shape": [1, 256]}]).inputs[0].SerializeToString()
    for pieces in ([contents], [contents[:3], b""]):  # the second is cut
        tensor = b"".join([head, *(b"\x2a" + varint(len(piece)) + piece for piece in pieces)])
        message = b"\x0a\x07unihead\x2a" + varint(len(tensor)) + tensor
        if len(pieces) == 1:
            np.testing.assert_array_equal(np.asarray(read_request(walk(message), wide).values)[0], values)
        else:
            with pytest.raises(MalformedRequest, match="ends within a field"):
                read_request(walk(message), wide)


def test_files_are_read_from_bytes_and_from_elements() -> None:
    message = request(raw_input_contents=[b"\3\0\0\0abc\0\0\0\0"])
    message.inputs[0].MergeFrom(ours.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES"))
    message.inputs[0].shape[:] = [2]
    assert read(message).values == [b"abc", b""]
    del message.raw_input_contents[:]
    message.inputs[0].contents.bytes_contents.extend([b"abc", b""])
    assert read(message).values == [b"abc", b""]


def test_outputs_and_the_deadline_are_read() -> None:
    message = request(raw_input_contents=[bytes(12)], outputs=[{"name": "mask"}, {"name": "boxes"}])
    message.parameters["timeout"].int64_param = 5000
    message.parameters["sequence_id"].int64_param = 0  # Triton's, which are passed over
    asked = read(message)
    assert (list(asked.outputs), asked.timeout_us) == (["mask", "boxes"], 5000)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": [{}, {}]}, "2 inputs"),
        ({"inputs": [{"name": "depth"}]}, "no input 'depth'"),
        ({"inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 2, 2, 3]}]}, "it takes UINT8"),
        ({"inputs": [{"name": "images", "datatype": "UINT8", "shape": [9, 2, 2, 3]}]}, "N from 1 to 4"),
        ({"inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 2, 2, 3]}]}, "whole numbers from 0"),
        ({"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1] * 5}]}, "whole numbers from 0"),
        ({"raw_input_contents": []}, "0 elements"),
        ({"raw_input_contents": [b"", b""]}, "2 elements"),
        ({"raw_input_contents": [bytes(11)]}, "11 bytes"),
        ({"parameters": {"timeout": {"int64_param": 0}}}, "takes microseconds"),
        ({"parameters": {"timeout": {"string_param": "1"}}}, "takes microseconds"),
        ({"outputs": [{"name": "mask", "parameters": {"classification": {"int64_param": 3}}}]}, "asked for as classes"),
        (
            {"outputs": [{"name": "mask", "parameters": {"shared_memory_region": {"string_param": "a"}}}]},
            "shared memory",
        ),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(MalformedRequest, match=words):
        read(request(**{"raw_input_contents": [bytes(12)], **changes}))


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ({"uint_contents": [200] * 11}, "11 values"),
        ({"uint_contents": [0] * 11 + [256]}, "beyond 255"),
        ({"uint_contents": [2**32 - 1] * 12}, "beyond 255"),
        ({"int_contents": [0] * 12}, "uint_contents"),
        ({"uint_contents": [0] * 12, "bytes_contents": [b"x"]}, "uint_contents"),
    ],
)
def test_what_is_wrong_with_numbers_is_said(contents: dict[str, Any], words: str) -> None:
    message = request()
    message.inputs[0].contents.MergeFrom(ours.InferTensorContents(**contents))
    with pytest.raises(MalformedRequest, match=words):
        read(message)
    message.raw_input_contents.append(bytes(12))
    with pytest.raises(MalformedRequest, match="both"):
        read(message)


def test_another_model_or_version_is_unknown() -> None:
    for changes in ({"model_name": "other"}, {"model_version": "2"}, {"model_name": ""}):
        with pytest.raises(UnknownModel):
            read(request(**changes))


def test_a_response_is_read_by_protobuf_as_it_was_meant() -> None:
    scores = [np.array([0.5, 0.25], np.float32), np.array([1, 0], np.float32)]
    results = [
        {"scores": encode(one, "FP32", binary=True), "mask": encode(np.full((2, 200), 3), "UINT8", binary=True)}
        for one in scores
    ]
    answer = ours.ModelInferResponse.FromString(write_response("7", ["scores", "mask"], results))
    assert (answer.model_name, answer.model_version, answer.id) == ("unihead", "1", "7")
    assert [(one.name, one.datatype, list(one.shape)) for one in answer.outputs] == [
        ("scores", "FP32", [2, 2]),
        ("mask", "UINT8", [2, 2, 200]),
    ]
    assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [0.5, 0.25, 1, 0]
    assert answer.raw_output_contents[1] == bytes([3]) * 800


def test_a_message_that_would_become_much_is_refused_before_it_does() -> None:
    for _, bomb in make_bombs():
        started = time.perf_counter()
        with pytest.raises((MalformedRequest, UnknownModel)):
            read(bomb)
        assert time.perf_counter() - started < 0.2


def test_words_are_counted_beside_values() -> None:
    walk(request(id="x" * (MOST_WORDS_BYTES - 100), raw_input_contents=[bytes(100_000)]).SerializeToString())
    with pytest.raises(MalformedRequest, match="beside the values"):
        walk(request(id="x" * MOST_WORDS_BYTES).SerializeToString())


def test_whole_messages_are_walked_without_a_loss() -> None:
    for message in make_requests().values():
        walked, whole = walk(message), ours.ModelInferRequest.FromString(message)
        again = ours.ModelInferRequest.FromString(walked.words)
        again.raw_input_contents.extend(map(bytes, walked.raw))
        for contents in walked.contents:
            again.inputs[0].contents.MergeFromString(bytes(contents))
        assert again == whole


def test_broken_messages_are_refused_as_such() -> None:
    outcomes = set()
    for _, message in make_messages(2000, seed=3):
        try:
            read(message)
            outcomes.add("read")
        except UniheadError as error:
            outcomes.add(type(error).__name__)
    assert outcomes == {"read", "MalformedRequest", "UnknownModel"}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(message: bytes) -> None:
    with pytest.raises((MalformedRequest, UnknownModel)):
        read(message)
