"""What stands in a picture's place is told apart, and each sentence says how to send the picture."""

from __future__ import annotations

import base64
import json
import time

import httpx
import numpy as np
import pytest

from service.api.hints import find_hint
from tests.service.clients import PICTURE, refuse
from tests.service.fakes import encode, make_form

pytestmark = pytest.mark.anyio

TEXT = base64.b64encode(PICTURE).decode()
NOISE = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
JSON, INFERENCE, ADDRESS = "is JSON, and a picture in it", "/v2/models/unihead/infer", "nothing is fetched"
NO_PICTURES = {
    "an image": (json.dumps({"image": TEXT}), JSON),
    "a list": (json.dumps([TEXT]), JSON),
    "pretty": (json.dumps({"file": TEXT}, indent=2), JSON),
    "an empty object": ("{}", JSON),
    "nested": (json.dumps([{"b64": TEXT}]), JSON),
    "a mark before it": ("\ufeff" + json.dumps({"image": TEXT}), JSON),
    "KServe's first protocol": (json.dumps({"instances": [{"b64": TEXT}]}), INFERENCE),
    "KServe's second protocol": (json.dumps({"inputs": []}), INFERENCE),
    "TensorFlow Serving": (json.dumps({"signature_name": "x", "instances": []}), INFERENCE),
    "an address": (json.dumps({"url": "https://example.org/a.jpg"}), ADDRESS),
    "an address alone": ("https://example.org/a.jpg", ADDRESS),
    "base64": (TEXT, "base64 text"),
    "a data URL": (f"data:image/jpeg;base64,{TEXT}", "base64 text"),
    "a field": ("file=@photo.jpg", "`curl -d`"),
    "a field of base64": (f"image={TEXT}", "`curl -d`"),
    "a file's name": ("photo.JPG", "name of a file"),
}


@pytest.mark.parametrize("name", NO_PICTURES)
async def test_json_and_other_texts_are_told_how_to_send_a_picture(client: httpx.AsyncClient, name: str) -> None:
    text, words = NO_PICTURES[name]
    detail = await refuse(client, "/predict", text.encode(), 415, "unsupported_image")
    assert words in detail
    assert "curl --data-binary @photo.jpg" in detail
    assert detail.count(". ") == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("lost", [b"\r\n", b"\r\n\0"])
async def test_a_picture_that_lost_its_line_ends_is_known(client: httpx.AsyncClient, kind: str, lost: bytes) -> None:
    body = encode(NOISE, kind).translate(None, lost)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = await client.post("/predict", content=body, headers=headers)
    assert response.status_code in {415, 422}
    assert "lost its line ends, as `curl -d`" in response.json()["detail"]
    assert "--data-binary" in response.json()["detail"]


async def test_a_form_and_the_protocol_of_triton_are_told_too(client: httpx.AsyncClient) -> None:
    body, content_type = make_form(file=json.dumps({"image": TEXT}).encode())
    assert JSON in await refuse(client, "/detect", body, 415, "unsupported_image", Content_Type=content_type)
    response = await client.post(
        "/v2/models/unihead/infer", content=TEXT.encode(), headers={"Inference-Header-Content-Length": "0"}
    )
    assert "base64 text" in response.json()["error"]


@pytest.mark.parametrize("body", [b"", b"hello", b"GIF89a" + bytes(20), PICTURE[:300], bytes(5000), b"[", b"<html>"])
def test_of_what_is_not_known_nothing_is_said(body: bytes) -> None:
    assert find_hint(body) is None


@pytest.mark.parametrize("unit", [b" ", b"{", b"[", b"a", b"=", b"{ ", b"a.", b"\xff\xd8\xff"])
def test_ten_megabytes_are_looked_at_in_no_time(unit: bytes) -> None:
    started = time.process_time()
    find_hint(unit * (10**7 // len(unit)))
    assert time.process_time() - started < 0.02
