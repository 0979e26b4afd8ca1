"""Triton's own client, unchanged, asks a real service with the embedded model."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from service.commands.spawn import Spawned
from service.engine.engine import Engine, load_engine
from service.engine.golden import GOLDEN_PICTURES
from service.pictures.imaging import decode, letterbox
from service.settings import Settings

pytestmark = pytest.mark.slow

OUTPUTS = ("boxes", "scores", "labels", "num_detections", "mask", "class_probs")
CAT = (GOLDEN_PICTURES / "chelsea.jpg").read_bytes()
COFFEE = (GOLDEN_PICTURES / "coffee.jpg").read_bytes()


@pytest.fixture
def client(served: Spawned) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"{served.host}:{served.port}", concurrency=4) as client:
        yield client


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine(Settings().model, threads=1)


def files(*bodies: bytes) -> triton.InferInput:
    tensor = triton.InferInput("image", [len(bodies)], "BYTES")
    tensor.set_data_from_numpy(np.array(bodies, dtype=np.object_))
    return tensor


def squares(engine: Engine, *bodies: bytes, binary: bool = True) -> tuple[triton.InferInput, list[NDArray[np.uint8]]]:
    size, fill = engine.contract.input_size, engine.contract.letterbox.fill
    arrays = [letterbox(decode(body), size, fill)[0] for body in bodies]
    tensor = triton.InferInput("images", [len(bodies), size, size, 3], "UINT8")
    tensor.set_data_from_numpy(np.stack(arrays), binary_data=binary)
    return tensor, arrays


def predict(served: Spawned, body: bytes) -> dict[str, Any]:
    url = f"http://{served.host}:{served.port}/predict?score_threshold=0"
    with urllib.request.urlopen(urllib.request.Request(url, data=body)) as response:
        said: dict[str, Any] = json.load(response)
    return said


def test_it_is_alive_ready_and_says_what_it_is(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("unihead")
    assert client.is_model_ready("unihead", "1")
    assert not client.is_model_ready("other")
    assert not client.is_model_ready("unihead", "2")
    assert client.get_server_metadata()["name"] == "unihead"
    metadata = client.get_model_metadata("unihead", "1")
    assert [output["name"] for output in metadata["outputs"]] == list(OUTPUTS)


def test_a_file_gets_the_numbers_of_predict(served: Spawned, client: triton.InferenceServerClient) -> None:
    answer = client.infer("unihead", [files(CAT)])
    said = predict(served, CAT)
    count = int(answer.as_numpy("num_detections")[0])
    assert count == len(said["detections"]) > 0
    boxes = np.array([one["box"] for one in said["detections"]])
    np.testing.assert_allclose(answer.as_numpy("boxes")[0, :count], boxes, atol=0.01)
    np.testing.assert_allclose(
        answer.as_numpy("scores")[0, :count], [one["score"] for one in said["detections"]], atol=1e-5
    )
    assert answer.as_numpy("labels")[0, :count].tolist() == [one["label_id"] for one in said["detections"]]
    pixels = np.bincount(answer.as_numpy("mask")[0].ravel(), minlength=21)
    assert {one["label_id"]: one["pixels"] for one in said["segments"]} == {
        i: n for i, n in enumerate(pixels.tolist()) if n
    }
    assert answer.as_numpy("mask").shape == (1, said["image"]["height"], said["image"]["width"])
    probabilities = answer.as_numpy("class_probs")[0]
    for one in said["classes"]:
        assert probabilities[one["label_id"]] == pytest.approx(one["probability"], abs=1e-5)


@pytest.mark.parametrize("binary", [True, False])
def test_the_networks_input_gets_what_the_network_gives(
    client: triton.InferenceServerClient, engine: Engine, binary: bool
) -> None:
    tensor, arrays = squares(engine, CAT, COFFEE, binary=binary)
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in OUTPUTS]
    answer = client.infer("unihead", [tensor], outputs=outputs, model_version="1", request_id="7")
    assert answer.get_response()["id"] == "7"
    for place, prediction in enumerate(engine.predict(arrays)):
        count = int(answer.as_numpy("num_detections")[place])
        assert count == len(prediction.scores)
        np.testing.assert_allclose(answer.as_numpy("boxes")[place, :count], prediction.boxes, atol=0.01)
        np.testing.assert_array_equal(answer.as_numpy("mask")[place], prediction.mask)
        np.testing.assert_allclose(answer.as_numpy("class_probs")[place], prediction.class_probs, atol=1e-5)


def test_named_outputs_come_alone(client: triton.InferenceServerClient) -> None:
    answer = client.infer("unihead", [files(CAT)], outputs=[triton.InferRequestedOutput("class_probs")])
    assert [output["name"] for output in answer.get_response()["outputs"]] == ["class_probs"]
    assert answer.as_numpy("boxes") is None


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_requests_and_answers_may_be_packed(client: triton.InferenceServerClient, algorithm: str) -> None:
    packed = client.infer(
        "unihead", [files(CAT)], request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
    )
    plain = client.infer("unihead", [files(CAT)])
    for name in OUTPUTS:
        np.testing.assert_array_equal(packed.as_numpy(name), plain.as_numpy(name))


def test_a_picture_of_nothing_has_outputs_of_the_same_shapes(
    client: triton.InferenceServerClient, engine: Engine
) -> None:
    size = engine.contract.input_size
    tensor = triton.InferInput("images", [1, size, size, 3], "UINT8")
    tensor.set_data_from_numpy(np.full((1, size, size, 3), engine.contract.letterbox.fill, dtype=np.uint8))
    answer = client.infer("unihead", [tensor])
    count = int(answer.as_numpy("num_detections")[0])
    assert answer.as_numpy("boxes").shape == (1, engine.contract.max_detections, 4)
    assert not answer.as_numpy("boxes")[0, count:].any()


def test_requests_at_once_never_mix(client: triton.InferenceServerClient) -> None:
    alone = [client.infer("unihead", [files(body)]).as_numpy("class_probs") for body in (CAT, COFFEE)]
    running = [(turn % 2, client.async_infer("unihead", [files((CAT, COFFEE)[turn % 2])])) for turn in range(20)]
    for which, request in running:
        np.testing.assert_array_equal(request.get_result().as_numpy("class_probs"), alone[which])


@pytest.mark.parametrize(
    ("model", "body", "words"),
    [
        ("other", CAT, "no model"),
        ("unihead", b"not a picture", "JPEG, PNG or WebP"),
        ("unihead", CAT[:2000], "damaged"),
        ("unihead", b"", "no body"),
    ],
)
def test_errors_are_sentences_that_the_client_can_read(
    client: triton.InferenceServerClient, model: str, body: bytes, words: str
) -> None:
    with pytest.raises(InferenceServerException) as failure:
        client.infer(model, [files(body)])
    assert words in str(failure.value)
    assert "decoding" not in str(failure.value)


def test_an_output_or_a_datatype_that_is_not_there_is_told(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="no output 'depth'"):
        client.infer("unihead", [files(CAT)], outputs=[triton.InferRequestedOutput("depth")])
    wrong = triton.InferInput("image", [1], "FP32")
    wrong.set_data_from_numpy(np.zeros(1, dtype=np.float32))
    with pytest.raises(InferenceServerException, match="it takes BYTES"):
        client.infer("unihead", [wrong])


def test_the_protocols_own_timeout_counts(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"deadline|wait"):
        client.infer("unihead", [files(CAT + b"late")], timeout=1)
