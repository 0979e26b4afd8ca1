from __future__ import annotations

import asyncio
import base64
import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from service.api.oip.wire import HEADER_LENGTH
from tests.service.fakes import encode, make_picture

pytestmark = pytest.mark.anyio

INFER = "/v2/models/unihead/infer"
OUTPUTS = ["boxes", "scores", "labels", "num_detections", "mask", "class_probs"]
DTYPES = {"FP32": np.float32, "INT64": np.int64, "UINT8": np.uint8}


def as_elements(*files: bytes) -> bytes:
    return b"".join(len(file).to_bytes(4, "little") + file for file in files)


def pack(document: dict[str, Any], *blobs: bytes) -> tuple[bytes, dict[str, str]]:
    head = json.dumps(document).encode()
    return b"".join([head, *blobs]), {HEADER_LENGTH: str(len(head))}


def files_request(*files: bytes, **more: object) -> tuple[bytes, dict[str, str]]:
    blob = as_elements(*files)
    entry = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [len(files)],
        "parameters": {"binary_data_size": len(blob)},
    }
    return pack({"inputs": [entry], **more}, blob)


def unpack(response: httpx.Response) -> dict[str, NDArray[Any]]:
    """The outputs of an answer, whichever way they came."""
    assert response.status_code == 200, response.text
    length = response.headers.get(HEADER_LENGTH)
    document = json.loads(response.content if length is None else response.content[: int(length)])
    rest = b"" if length is None else response.content[int(length) :]
    found: dict[str, NDArray[Any]] = {}
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        dtype = DTYPES[output["datatype"]]
        if size is None:
            values = np.array(output["data"], dtype=dtype)
        else:
            values, rest = np.frombuffer(rest[:size], dtype), rest[size:]
        found[output["name"]] = values.reshape(output["shape"])
    assert rest == b""
    return found


async def ask(client: httpx.AsyncClient, body: bytes, headers: dict[str, str]) -> httpx.Response:
    return await client.post(INFER, content=body, headers=headers)


async def test_the_server_names_itself_and_is_alive_and_ready(client: httpx.AsyncClient) -> None:
    said = (await client.get("/v2")).json()
    assert said["name"] == "unihead"
    assert said["extensions"] == ["binary_tensor_data", "model_configuration", "statistics"]
    assert (await client.get("/v2/health/live")).json() == {"live": True}
    assert (await client.get("/v2/health/ready")).json() == {"live": True, "ready": True}


@pytest.mark.parametrize("path", ["/v2/models/unihead", "/v2/models/unihead/versions/1"])
async def test_the_model_says_what_it_takes_and_gives(client: httpx.AsyncClient, path: str) -> None:
    said = (await client.get(path)).json()
    assert said["versions"] == ["1"]
    assert [one["name"] for one in said["inputs"]] == ["image", "images"]
    assert [one["name"] for one in said["outputs"]] == OUTPUTS
    assert (await client.get(f"{path}/ready")).json() == {"name": "unihead", "ready": True}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models/other"),
        ("GET", "/v2/models/unihead/versions/2/ready"),
        ("POST", "/v2/models/other/infer"),
        ("POST", "/v2/models/unihead/versions/0/infer"),
        ("GET", "/v2/nothing"),
    ],
)
async def test_what_is_not_there_is_an_error_that_clients_can_read(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await client.request(method, path, content=b"{}")
    assert response.status_code == 404
    assert list(response.json()) == ["error"]


async def test_another_method_is_an_error_that_clients_can_read(client: httpx.AsyncClient) -> None:
    response = await client.get(INFER)
    assert response.status_code == 405
    assert list(response.json()) == ["error"]


async def test_a_file_gets_what_predict_says(client: httpx.AsyncClient) -> None:
    picture = encode(make_picture(90, 60))
    body, headers = files_request(picture, parameters={"binary_data_output": True}, id="seven")
    response = await ask(client, body, headers)
    outputs = unpack(response)
    assert json.loads(response.content[: int(response.headers[HEADER_LENGTH])])["id"] == "seven"
    assert list(outputs) == OUTPUTS
    predicted = (await client.post("/predict", content=picture, params={"score_threshold": 0})).json()
    count = int(outputs["num_detections"][0])
    assert count == len(predicted["detections"])
    boxes = [one["box"] for one in predicted["detections"]]
    np.testing.assert_allclose(outputs["boxes"][0, :count], np.array(boxes).reshape(-1, 4), atol=0.01)
    assert not outputs["boxes"][0, count:].any()
    assert outputs["mask"].shape == (1, 60, 90)
    best = predicted["classes"][0]
    assert outputs["class_probs"][0].argmax() == best["label_id"]
    assert response.headers["X-Unihead-Cache"] == "miss"


async def test_json_carries_files_as_base64_and_gets_json(client: httpx.AsyncClient) -> None:
    picture = encode(make_picture())
    text = base64.b64encode(picture).decode()
    document = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}]}
    response = await client.post(INFER, json=document)
    assert response.headers["content-type"] == "application/json"
    assert HEADER_LENGTH not in response.headers
    binary = unpack(await ask(client, *files_request(picture, parameters={"binary_data_output": True})))
    for name, values in unpack(response).items():
        np.testing.assert_allclose(values, binary[name], rtol=1e-6)


async def test_a_body_without_json_is_one_picture(client: httpx.AsyncClient) -> None:
    response = await ask(client, encode(make_picture(40, 30)), {HEADER_LENGTH: "0"})
    assert response.headers["content-type"] == "application/octet-stream"
    assert unpack(response)["mask"].shape == (1, 30, 40)


async def test_the_networks_own_input_gets_what_the_network_gives(client: httpx.AsyncClient) -> None:
    size = (await client.get("/v2/models/unihead")).json()["inputs"][1]["shape"][1]
    squares = np.stack([make_picture(size, size, seed=seed) for seed in range(2)])
    entry = {
        "name": "images",
        "datatype": "UINT8",
        "shape": list(squares.shape),
        "parameters": {"binary_data_size": squares.nbytes},
    }
    body, headers = pack({"inputs": [entry]}, squares.tobytes())
    outputs = unpack(await ask(client, body, headers))
    assert outputs["mask"].shape[0] == 2
    assert outputs["mask"].shape[1] < size
    as_json = {"inputs": [{**entry, "parameters": {}, "data": squares.ravel().tolist()}]}
    again = await client.post(INFER, json=as_json)
    assert again.headers["X-Unihead-Cache"] == "hit, hit"
    np.testing.assert_array_equal(unpack(again)["mask"], outputs["mask"])


async def test_named_outputs_come_alone_and_each_as_it_was_asked_for(client: httpx.AsyncClient) -> None:
    wanted = [{"name": "class_probs", "parameters": {"binary_data": True}}, {"name": "num_detections"}]
    response = await ask(client, *files_request(encode(make_picture()), outputs=wanted))
    head = json.loads(response.content[: int(response.headers[HEADER_LENGTH])])
    assert [(one["name"], "data" in one) for one in head["outputs"]] == [
        ("class_probs", False),
        ("num_detections", True),
    ]
    assert head["model_name"] == "unihead"
    assert head["model_version"] == "1"
    unpack(response)


async def test_pictures_of_one_request_keep_their_order(client: httpx.AsyncClient) -> None:
    files = [encode(make_picture(seed=seed)) for seed in range(4)]
    together = unpack(await ask(client, *files_request(*files)))
    for place, file in enumerate(files):
        alone = unpack(await ask(client, *files_request(file)))
        for name in OUTPUTS:
            np.testing.assert_array_equal(together[name][place], alone[name][0])


async def test_pictures_of_several_sizes_have_no_common_mask(client: httpx.AsyncClient) -> None:
    files = [encode(make_picture(40, 30)), encode(make_picture(30, 40))]
    refused = await ask(client, *files_request(*files))
    assert refused.status_code == 400
    assert "mask" in refused.json()["error"]
    assert unpack(await ask(client, *files_request(*files, outputs=[{"name": "boxes"}])))["boxes"].shape[0] == 2


@pytest.mark.parametrize(("encoding", "pack_body"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_requests_and_answers_may_be_packed(
    client: httpx.AsyncClient, encoding: str, pack_body: Callable[[bytes], bytes]
) -> None:
    body, headers = files_request(encode(make_picture()))
    response = await ask(
        client, pack_body(body), {**headers, "Content-Encoding": encoding, "Accept-Encoding": encoding}
    )
    assert response.headers["content-encoding"] == encoding
    assert list(unpack(response)) == OUTPUTS


async def test_requests_share_passes_with_those_of_other_routes(client: httpx.AsyncClient) -> None:
    picture = encode(make_picture())
    answers = await asyncio.gather(
        ask(client, *files_request(picture)),
        client.post("/segment", content=picture),
        client.post("/detect", content=picture),
    )
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    lines = (await client.get("/metrics")).text.splitlines()
    assert "unihead_forward_passes_total 1.0" in lines
    assert any(line.startswith('unihead_ms_per_image_count{stage="total",task="infer"} 1.0') for line in lines)


@pytest.mark.parametrize(
    ("document", "word"),
    [
        (b"{", "JSON"),
        (b"[]", "object"),
        (b"{}", "`inputs`"),
        (b'{"inputs": 1}', "array"),
        (b'{"inputs": [1]}', "object"),
        (b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}]}', "data"),
        (b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": ["AAAA"]}]}', "shape"),
        (b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [7]}]}', "text"),
        (b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["?"]}]}', "base64"),
        (b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [0], "data": []}]}', "N from 1"),
        (b'{"inputs": [{"name": "image", "datatype": "FP32", "shape": [1], "data": [1]}]}', "BYTES"),
        (b'{"inputs": [{"name": "image", "datatype": "WORD", "shape": [1], "data": [1]}]}', "datatype"),
        (b'{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1], "data": [256]}]}', "UINT8"),
        (b'{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1], "data": [1]}]}', "N from 1"),
        (b'{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1], "data": [1]}]}', "whole numbers"),
        (b'{"inputs": [{"name": "other", "datatype": "UINT8", "shape": [1], "data": [1]}]}', "no input"),
    ],
)
async def test_what_is_wrong_is_said(client: httpx.AsyncClient, document: bytes, word: str) -> None:
    response = await client.post(INFER, content=document)
    assert response.status_code == 400
    assert word in response.json()["error"]


@pytest.mark.parametrize("length", ["-1", "x", "999999"])
async def test_a_wrong_header_length_is_said(client: httpx.AsyncClient, length: str) -> None:
    response = await ask(client, b"{}", {HEADER_LENGTH: length})
    assert response.status_code == 400
    assert HEADER_LENGTH in response.json()["error"]


@pytest.mark.parametrize("change", [-1, 1])
async def test_binary_data_must_be_as_long_as_it_says(client: httpx.AsyncClient, change: int) -> None:
    body, headers = files_request(encode(make_picture()))
    response = await ask(client, body[:change] if change < 0 else body + b"x", headers)
    assert response.status_code == 400


async def test_an_output_that_is_not_there_is_said(client: httpx.AsyncClient) -> None:
    response = await ask(client, *files_request(encode(make_picture()), outputs=[{"name": "depth"}]))
    assert response.status_code == 400
    assert "depth" in response.json()["error"]


async def test_a_damaged_picture_fails_its_request(client: httpx.AsyncClient) -> None:
    response = await ask(client, *files_request(encode(make_picture()), b"GIF89a nothing"))
    assert response.status_code == 415
    assert list(response.json()) == ["error"]


async def test_unpacked_bodies_have_the_same_limit(client: httpx.AsyncClient) -> None:
    response = await client.post(INFER, content=gzip.compress(bytes(10**6)), headers={"Content-Encoding": "gzip"})
    assert response.status_code == 413


@pytest.mark.parametrize("encoding", ["br", "gzip"])
async def test_other_packing_is_refused(client: httpx.AsyncClient, encoding: str) -> None:
    response = await client.post(INFER, content=b"{}", headers={"Content-Encoding": encoding})
    assert response.status_code == 400


@pytest.mark.parametrize("microseconds", [0, "1", 10**12])
async def test_a_timeout_is_a_number_of_microseconds(client: httpx.AsyncClient, microseconds: object) -> None:
    response = await ask(client, *files_request(encode(make_picture()), parameters={"timeout": microseconds}))
    assert response.status_code == 400
    assert "timeout" in response.json()["error"]
