"""Triton's own gRPC client, unchanged, asks a real service with the embedded model."""

from __future__ import annotations

import json
import queue
import threading
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from service.api.keys import make_key
from service.engine.engine import Engine, load_engine
from service.engine.golden import GOLDEN_PICTURES
from service.pictures.imaging import decode, letterbox
from service.settings import Settings
from tests.grpc_service import GrpcSpawned, load_triton, spawn_grpc
from tests.service.fakes import write_keys

triton = load_triton()
pytestmark = pytest.mark.slow
# What has no types.
Client: TypeAlias = Any
Tensor: TypeAlias = Any
Told: TypeAlias = Any

OUTPUTS = ("boxes", "scores", "labels", "num_detections", "mask", "class_probs")
CAT = (GOLDEN_PICTURES / "chelsea.jpg").read_bytes()
COFFEE = (GOLDEN_PICTURES / "coffee.jpg").read_bytes()


@pytest.fixture
def client(served_grpc: GrpcSpawned) -> Iterator[Client]:
    with triton.InferenceServerClient(served_grpc.address) as client:
        yield client


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine(Settings().model, threads=1)


def files(*bodies: bytes) -> Tensor:
    tensor = triton.InferInput("image", [len(bodies)], "BYTES")
    tensor.set_data_from_numpy(np.array(bodies, dtype=np.object_))
    return tensor


def squares(engine: Engine, *bodies: bytes) -> tuple[Tensor, list[NDArray[np.uint8]]]:
    size, fill = engine.contract.input_size, engine.contract.letterbox.fill
    arrays = [letterbox(decode(body), size, fill)[0] for body in bodies]
    tensor = triton.InferInput("images", [len(bodies), size, size, 3], "UINT8")
    tensor.set_data_from_numpy(np.stack(arrays))
    return tensor, arrays


def ask(service: GrpcSpawned, path: str, body: bytes | None = None) -> dict[str, Any]:
    """What the other port says."""
    url = f"http://{service.http.host}:{service.http.port}{path}"
    with urllib.request.urlopen(urllib.request.Request(url, data=body)) as response:
        said: dict[str, Any] = json.load(response)
    return said


def test_it_is_alive_ready_and_says_what_it_is(client: Client, served_grpc: GrpcSpawned) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("unihead")
    assert client.is_model_ready("unihead", "1")
    assert not client.is_model_ready("other")
    assert not client.is_model_ready("unihead", "2")
    assert client.get_server_metadata().name == "unihead"
    metadata = client.get_model_metadata("unihead", "1", as_json=True)
    over_http = ask(served_grpc, "/v2/models/unihead")
    assert [output["name"] for output in metadata["outputs"]] == list(OUTPUTS)
    for tensor in metadata["inputs"] + metadata["outputs"]:
        tensor["shape"] = [int(size) for size in tensor["shape"]]  # JSON of protobuf has 64 bits as texts
    assert metadata == over_http


def test_a_file_gets_the_numbers_of_predict(served_grpc: GrpcSpawned, client: Client) -> None:
    answer = client.infer("unihead", [files(CAT)])
    said = ask(served_grpc, "/predict?score_threshold=0", CAT)
    count = int(answer.as_numpy("num_detections")[0])
    assert count == len(said["detections"]) > 0
    boxes = np.array([one["box"] for one in said["detections"]])
    np.testing.assert_allclose(answer.as_numpy("boxes")[0, :count], boxes, atol=0.01)
    scores = [one["score"] for one in said["detections"]]
    np.testing.assert_allclose(answer.as_numpy("scores")[0, :count], scores, atol=1e-5)
    assert answer.as_numpy("labels")[0, :count].tolist() == [one["label_id"] for one in said["detections"]]
    pixels = np.bincount(answer.as_numpy("mask")[0].ravel(), minlength=21)
    assert {one["label_id"]: one["pixels"] for one in said["segments"]} == {
        i: n for i, n in enumerate(pixels.tolist()) if n
    }
    assert answer.as_numpy("mask").shape == (1, said["image"]["height"], said["image"]["width"])
    for one in said["classes"]:
        assert answer.as_numpy("class_probs")[0][one["label_id"]] == pytest.approx(one["probability"], abs=1e-5)


def test_the_networks_input_gets_what_the_network_gives(client: Client, engine: Engine) -> None:
    tensor, arrays = squares(engine, CAT, COFFEE)
    outputs = [triton.InferRequestedOutput(name) for name in OUTPUTS]
    answer = client.infer("unihead", [tensor], outputs=outputs, model_version="1", request_id="7")
    assert answer.get_response().id == "7"
    for place, prediction in enumerate(engine.predict(arrays)):
        count = int(answer.as_numpy("num_detections")[place])
        assert count == len(prediction.scores)
        np.testing.assert_allclose(answer.as_numpy("boxes")[place, :count], prediction.boxes, atol=0.01)
        np.testing.assert_array_equal(answer.as_numpy("mask")[place], prediction.mask)
        np.testing.assert_allclose(answer.as_numpy("class_probs")[place], prediction.class_probs, atol=1e-5)


def test_named_outputs_come_alone_and_in_their_order(client: Client) -> None:
    outputs = [triton.InferRequestedOutput(name) for name in ("scores", "class_probs")]
    answer = client.infer("unihead", [files(CAT)], outputs=outputs)
    assert [output.name for output in answer.get_response().outputs] == ["scores", "class_probs"]
    assert answer.as_numpy("boxes") is None


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_messages_may_be_packed(client: Client, algorithm: str) -> None:
    packed = client.infer("unihead", [files(CAT)], compression_algorithm=algorithm)
    plain = client.infer("unihead", [files(CAT)])
    for name in OUTPUTS:
        np.testing.assert_array_equal(packed.as_numpy(name), plain.as_numpy(name))


def test_requests_at_once_never_mix(client: Client) -> None:
    alone = [client.infer("unihead", [files(body)]).as_numpy("class_probs") for body in (CAT, COFFEE)]
    done: queue.Queue[tuple[int, Told, Told]] = queue.Queue()

    def put(turn: int, result: Told, error: Told) -> None:
        done.put((turn, result, error))

    for turn in range(20):
        client.async_infer("unihead", [files((CAT, COFFEE)[turn % 2])], callback=partial(put, turn))
    for _ in range(20):
        turn, result, error = done.get(timeout=30)
        assert error is None
        np.testing.assert_array_equal(result.as_numpy("class_probs"), alone[turn % 2])


@pytest.mark.parametrize(
    ("model", "body", "status", "words"),
    [
        ("other", CAT, "NOT_FOUND", "no model"),
        ("unihead", b"not a picture", "INVALID_ARGUMENT", "JPEG, PNG or WebP"),
        ("unihead", CAT[:2000], "INVALID_ARGUMENT", "damaged"),
        ("unihead", b"", "INVALID_ARGUMENT", "no body"),
        ("unihead", b"\xff\xd8" + bytes(10_000_000), "RESOURCE_EXHAUSTED", "arger than max"),
    ],
)
def test_errors_have_a_status_and_a_sentence(client: Client, model: str, body: bytes, status: str, words: str) -> None:
    with pytest.raises(InferenceServerException) as failure:
        client.infer(model, [files(body)])
    assert failure.value.status() == f"StatusCode.{status}"
    assert words in failure.value.message()


def test_an_output_or_a_datatype_that_is_not_there_is_told(client: Client) -> None:
    with pytest.raises(InferenceServerException, match="no output 'depth'"):
        client.infer("unihead", [files(CAT)], outputs=[triton.InferRequestedOutput("depth")])
    with pytest.raises(InferenceServerException, match="asked for as classes"):
        client.infer("unihead", [files(CAT)], outputs=[triton.InferRequestedOutput("class_probs", class_count=3)])
    wrong = triton.InferInput("image", [1], "FP32")
    wrong.set_data_from_numpy(np.zeros(1, dtype=np.float32))
    with pytest.raises(InferenceServerException, match="it takes BYTES"):
        client.infer("unihead", [wrong])


def test_both_deadlines_count(client: Client) -> None:
    """That of the call, which its client keeps as well, and the protocol's own, in microseconds."""
    for options in ({"client_timeout": 0.001}, {"timeout": 1}):
        with pytest.raises(InferenceServerException) as failure:
            client.infer("unihead", [files(CAT)], headers={"cache-control": "no-cache"}, **options)
        assert failure.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_a_call_can_be_cancelled(client: Client) -> None:
    ended = threading.Event()
    told: list[Told] = []

    def note(result: Told, error: Told) -> None:  # noqa: ARG001 - it is called by names
        told.append(error)
        ended.set()

    running = client.async_infer("unihead", [files(CAT + b"cancel")], callback=note)
    running.cancel()
    assert ended.wait(10)
    assert told[0].status() == "StatusCode.CANCELLED"


def test_without_a_key_only_health_is_told(tmp_path: Path) -> None:
    key = make_key()
    keys = write_keys(tmp_path / "keys", me=key)
    with spawn_grpc("--keys", str(keys)) as service, triton.InferenceServerClient(service.address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        for headers in (
            None,
            {"authorization": "Bearer uh_wrong"},
            {"x-api-key": key, "authorization": f"Bearer {key}"},
        ):
            with pytest.raises(InferenceServerException) as failure:
                client.infer("unihead", [files(CAT)], headers=headers)
            assert failure.value.status() == "StatusCode.UNAUTHENTICATED"
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                client.get_model_metadata("unihead", headers=headers)
        for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
            answer = client.infer("unihead", [files(CAT)], headers=headers)
            assert answer.as_numpy("class_probs").shape[0] == 1
