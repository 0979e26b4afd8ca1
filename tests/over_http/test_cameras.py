"""A real service with the embedded model, asked as recorders ask: the requests of their sources, written anew."""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.commands.spawn import Spawned
from service.engine.golden import GOLDEN_PICTURES
from tests.service.fakes import encode

pytestmark = pytest.mark.slow

DETECTION = "/v1/vision/detection"
PICTURE = Image.open(GOLDEN_PICTURES / "chelsea.jpg").convert("RGB")
# Of Frigate's plugin: the size of its default model, its rows, and what it makes of less.
FRIGATE_SIDE, FRIGATE_ROWS, FRIGATE_LEAST = 320, 20, 0.4


def make_form(image: bytes, **fields: str) -> tuple[bytes, str]:
    """A form as the library requests writes it: fields first, and the file named as its field, without a type."""
    head = b"".join(
        f'--b0\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    )
    file = b'--b0\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n\r\n'
    return head + file + image + b"\r\n--b0--\r\n", "multipart/form-data; boundary=b0"


def post(served: Spawned, path: str, image: bytes, **fields: str) -> tuple[int, Any]:
    """As requests.post does, which makes a connection for each."""
    body, content_type = make_form(image, **fields)
    with contextlib.closing(http.client.HTTPConnection(served.host, served.port, timeout=10)) as connection:
        connection.request("POST", path, body, {"Content-Type": content_type})
        response = connection.getresponse()
        return response.status, json.load(response)


def detect_as_frigate(
    served: Spawned, path: str, square: NDArray[np.uint8], names: dict[str, int]
) -> NDArray[np.float32]:
    """Twenty rows of class, score, and top, left, bottom, right as shares; whatever the status, predictions count."""
    side = len(square)
    _, said = post(served, path, encode(square, "JPEG"), api_key="")
    rows = np.zeros((FRIGATE_ROWS, 6), np.float32)
    for row, one in enumerate(said.get("predictions") or []):
        if one["confidence"] < FRIGATE_LEAST or one["label"].lower() not in names:
            break
        sides = (one[name] / side for name in ("y_min", "x_min", "y_max", "x_max"))
        rows[row] = [names[one["label"].lower()], one["confidence"], *sides]
    return rows


@pytest.fixture(scope="module")
def names(served: Spawned) -> dict[str, int]:
    classes = httpx.get(f"{served.url}/info").json()["contract"]["detection_classes"]
    return {name: number for number, name in enumerate(classes)}


def test_frigate_finds_a_cat(served: Spawned, names: dict[str, int]) -> None:
    square = np.asarray(PICTURE.crop((0, 0, 451, 451)).resize((FRIGATE_SIDE, FRIGATE_SIDE)))
    rows = detect_as_frigate(served, DETECTION, square, names)
    found = rows[rows[:, 1] > 0]
    assert len(found) > 0
    assert names["cat"] in found[:, 0]
    assert (found[:, 1] >= FRIGATE_LEAST).all()
    assert (found[:, 2:] >= 0).all()
    assert (found[:, 2:] <= 1).all()
    assert (found[:, 2] < found[:, 4]).all()
    assert (found[:, 3] < found[:, 5]).all()


def test_frigate_takes_a_refusal_for_a_picture_without_objects(served: Spawned, names: dict[str, int]) -> None:
    square = np.zeros((FRIGATE_SIDE, FRIGATE_SIDE, 3), np.uint8)
    assert not detect_as_frigate(served, "/v1/vision/custom/nothing", square, names).any()


def test_frigate_has_room_for_every_box(served: Spawned) -> None:
    for confidence in ("0", "0.01", "0.05"):
        _, said = post(served, DETECTION, encode(PICTURE, "JPEG"), min_confidence=confidence)
        assert len(said["predictions"]) == said["count"] <= FRIGATE_ROWS
    status, said = post(served, DETECTION, encode(PICTURE, "JPEG"), min_confidence="0")
    assert (status, said["count"]) == (200, FRIGATE_ROWS)


@pytest.mark.parametrize("path", [DETECTION, "/v1/vision/custom/unihead"])
@pytest.mark.parametrize("fields", [{"api_key": "", "min_confidence": "0.1"}, {"min_confidence": "0.1"}])
def test_home_assistant_finds_a_cat(served: Spawned, path: str, fields: dict[str, str]) -> None:
    """Its two integrations, of DeepStack and of CodeProject.AI: boxes become shares of the camera's picture."""
    snapshot = PICTURE.resize((640, 480))
    status, said = post(served, path, encode(snapshot, "JPEG"), **fields)
    assert status == 200
    cats = [one for one in said["predictions"] if one["label"] == "cat"]
    assert cats
    for one in cats:
        assert 0 <= one["x_min"] / 640 < one["x_max"] / 640 <= 1
        assert 0 <= one["y_min"] / 480 < one["y_max"] / 480 <= 1
    assert said["predictions"][0]["confidence"] == max(one["confidence"] for one in said["predictions"])


def test_blue_iris_finds_the_server_its_model_and_a_cat(served: Spawned) -> None:
    assert httpx.get(f"{served.url}/v1/status/updateavailable").json()["updateAvailable"] is False
    models = httpx.post(f"{served.url}/v1/vision/custom/list").json()["models"]
    for path in [DETECTION, *(f"/v1/vision/custom/{name}" for name in models)]:
        _, said = post(served, path, encode(PICTURE, "JPEG"), min_confidence="0.4")
        assert said["success"] is True
        assert {type(said[name]) for name in ("count", "inferenceMs", "processMs")} == {int}
        assert "cat" in [one["label"] for one in said["predictions"]]
