"""Small requests that would cost much: refused in one short sentence, and nobody else waits for the interpreter."""

from __future__ import annotations

import base64
import gzip
import json

import httpx
import numpy as np
import pytest

from service.api.fields.packing import unpack
from service.api.oip.tensors import BYTES, MOST_JSON_VALUES, UINT8, InputSpec, encode
from service.api.oip.wire import read_request
from service.app import create_app
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.errors import MalformedRequest
from service.settings import Settings
from tests.attacks.costly import COSTLY_JSON, MOST_BYTES, make_entry, repeat
from tests.attacks.holding import measure_hold_ms
from tests.service.clients import connect
from tests.service.fakes import FakeSession, make_picture
from tests.service.fakes import encode as encode_picture

MOST_HOLD_MS = 50
SPECS = {"image": InputSpec(BYTES, (), 16), "images": InputSpec(UINT8, (320, 320, 3), 16)}
INFER = "/v2/models/unihead/infer"


def read(body: bytes, header_length: str | None = None) -> object:
    return read_request(body, header_length, SPECS, raw_input="image")


@pytest.mark.parametrize("name", COSTLY_JSON)
def test_no_json_holds_the_interpreter_for_long(name: str) -> None:
    body = COSTLY_JSON[name]()
    assert len(body) <= MOST_BYTES
    assert measure_hold_ms(lambda: read(body)) < MOST_HOLD_MS


def test_a_packed_body_does_not_hold_the_interpreter_while_it_is_unpacked() -> None:
    packed = gzip.compress(repeat(b"{},"))
    assert measure_hold_ms(lambda: unpack(packed, "gzip", MOST_BYTES, lambda _: None)) < MOST_HOLD_MS


def test_the_largest_tensor_in_json_does_not_hold_the_interpreter_while_it_is_written() -> None:
    values = np.random.default_rng(0).random(MOST_JSON_VALUES, dtype=np.float32)
    assert measure_hold_ms(lambda: encode(values, "FP32", binary=False)) < MOST_HOLD_MS


@pytest.mark.parametrize("name", sorted(set(COSTLY_JSON) - {"a picture"}))
def test_what_costs_much_is_refused_in_a_short_sentence(name: str) -> None:
    with pytest.raises(MalformedRequest) as refusal:
        read(COSTLY_JSON[name]())
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (make_entry(shape="[1,1,1,1,1]"), "one to 4 whole numbers"),
        (make_entry(shape="[]"), "one to 4 whole numbers"),
        (make_entry(shape="[1e3]"), "one to 4 whole numbers"),
        (make_entry(shape='["1"]'), "one to 4 whole numbers"),
        (make_entry(shape="[99999999999999999999]"), "one to 4 whole numbers"),
        (make_entry(shape="[17]", data="[" + '"",' * 16 + '""]'), "N from 1 to 16"),
        (make_entry(shape="[4, 5]"), "N from 1 to 16"),
        (make_entry("images", "UINT8", "[1099511627776, 0, 1099511627776, 3]"), "whole numbers"),
        (make_entry("images", "UINT8", "[2, 0, 320, 3]"), "takes UINT8 of the shape [N, 320, 320, 3]"),
        (make_entry("images", "UINT8", "[0, 320, 320, 3]"), "N from 1 to 16"),
        (make_entry(shape="[2]", data='["",""]').replace(b"]}", b'],"id":"' + b"x" * 257 + b'"}', 2), "length <= 256"),
        (b'{"inputs":[' + make_entry()[11:-2] + b"," + make_entry()[11:-2] + b"]}", "of length 1 - at `$.inputs`"),
        (make_entry()[:-1] + b',"parameters":{"timeout":0}}', "$.parameters.timeout"),
        (make_entry()[:-1] + b',"parameters":{"binary_data_output":"yes"}}', "$.parameters.binary_data_output"),
        (make_entry()[:-1] + b',"outputs":[' + b" " * 20_000 + b"]}", "outputs has more than 16384 bytes"),
        (make_entry("images", "UINT8", "[1,320,320,3]", "[1,2]"), "not 307200 UINT8 numbers"),
        (b'{"inputs":[{"name":"image","datatype":"BYTES","shape":[1]}]}', "neither data nor"),
    ],
)
def test_sizes_and_numbers_of_things_are_bounded(document: bytes, words: str) -> None:
    with pytest.raises(MalformedRequest) as refusal:
        read(document)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    "data",
    ["[[1,2],[3,4]]", " [ [1, 2] ,\n[3,4]\t] ", "[1,2,3,4]"],
)
def test_numbers_come_flat_or_nested_as_their_shape(data: str) -> None:
    specs = {"images": InputSpec(UINT8, (2,), 16)}
    asked = read_request(make_entry("images", "UINT8", "[2,2]", data), None, specs, raw_input="image")
    np.testing.assert_array_equal(asked.values, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    "data",
    [
        "[[1,2,3],[4]]",
        "[[1,2,3,4]]",
        "[[[1,2],[3,4]]]",
        "[1,2,3]",
        "[1,2,3,4,5]",
        "[1,2,3,4.0]",
        "[1,2,3,-4]",
        "1234",
        "[1,2,3,256]",
        "[1,2,[3,4]]",
        '[1,2,3,"4"]',
        "[1,,3,4]",
        "{}",
        "null",
        "[true,1,1,1]",
        "[1 2,3,4,5]",
        "[01,2,3,4]",
    ],
)
def test_other_numbers_are_refused(data: str) -> None:
    specs = {"images": InputSpec(UINT8, (2,), 16)}
    with pytest.raises(MalformedRequest):
        read_request(make_entry("images", "UINT8", "[2,2]", data), None, specs, raw_input="image")


def test_numbers_that_are_cut_into_many_pieces_are_all_there_and_in_order() -> None:
    values = np.random.default_rng(0).integers(0, 256, (1, 320, 320, 3), dtype=np.uint8)
    for text in (json.dumps(values.ravel().tolist()), json.dumps(values.tolist())):
        asked = read(make_entry("images", "UINT8", "[1,320,320,3]", text))
        np.testing.assert_array_equal(asked.values, values)  # type: ignore[attr-defined]  # of a request


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ({"parameters": {"classification": 3}}, "class_count"),
        ({"parameters": {"class_count": 3}}, "class_count"),
        ({"parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 9}}, "shared memory"),
    ],
)
async def test_extensions_that_are_not_served_are_named(
    client: httpx.AsyncClient, tensor: dict[str, object], words: str
) -> None:
    asked = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [""]}
    document = {"inputs": [asked], "outputs": [{"name": "class_probs", **tensor}]}
    response = await client.post(INFER, json=document)
    assert response.status_code == 400
    assert words in response.json()["error"]


@pytest.mark.anyio
async def test_an_input_in_shared_memory_is_refused(client: httpx.AsyncClient) -> None:
    parameters = {"shared_memory_region": "r", "shared_memory_byte_size": 9}
    asked = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": parameters}
    response = await client.post(INFER, json={"inputs": [asked]})
    assert response.status_code == 400
    assert "shared memory" in response.json()["error"]


async def ask_for_masks(
    contract: ModelContract, settings: Settings, size: tuple[int, int], *, count: int, binary: bool
) -> httpx.Response:
    session = FakeSession()
    app = create_app(settings, Engine(session, contract, sha256="c0ffee"))
    text = base64.b64encode(encode_picture(make_picture(*size), "JPEG")).decode()
    asked = {"name": "image", "datatype": "BYTES", "shape": [count], "data": [text] * count}
    outputs = [{"name": "mask", "parameters": {"binary_data": binary}}]
    async with app.router.lifespan_context(app), connect(app) as client:
        return await client.post(INFER, json={"inputs": [asked], "outputs": outputs})


@pytest.mark.anyio
async def test_a_large_mask_comes_as_binary_data_and_not_as_json(contract: ModelContract) -> None:
    size = (1024, MOST_JSON_VALUES // 1024 + 1)
    refused = await ask_for_masks(contract, Settings(), size, count=1, binary=False)
    assert refused.status_code == 400
    assert "ask for it as binary data" in refused.json()["error"]
    assert (await ask_for_masks(contract, Settings(), size, count=1, binary=True)).status_code == 200
    assert (await ask_for_masks(contract, Settings(), (1024, 512), count=2, binary=False)).status_code == 200
    refused = await ask_for_masks(contract, Settings(), (1024, 512), count=3, binary=False)
    assert refused.status_code == 400


@pytest.mark.anyio
async def test_masks_of_several_pictures_have_together_the_pixels_of_one(contract: ModelContract) -> None:
    settings = Settings(max_pixels=20_000)
    assert (await ask_for_masks(contract, settings, (100, 200), count=1, binary=True)).status_code == 200
    assert (await ask_for_masks(contract, settings, (100, 100), count=2, binary=True)).status_code == 200
    refused = await ask_for_masks(contract, settings, (100, 100), count=3, binary=True)
    assert refused.status_code == 400
    assert "30000 pixels, and 20000 are the limit" in refused.json()["error"]
