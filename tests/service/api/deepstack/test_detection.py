from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray

from service.app import create_app
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.pictures.imaging import UInt8Array
from service.settings import Settings
from tests.service.clients import PICTURE, connect, count
from tests.service.fakes import FakeSession, make_contract, make_form

pytestmark = pytest.mark.anyio

DETECTION = "/v1/vision/detection"
VOC = ("aeroplane", "diningtable", "motorbike", "pottedplant", "sofa", "tvmonitor", "person", "gnome")
COCO = ["airplane", "dining table", "motorcycle", "potted plant", "couch", "tv", "person", "gnome"]


class ManyBoxes(FakeSession):
    """Thirty boxes, the best first, all of them above what a form that says nothing asks for."""

    def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
        rows, shape = 30, (len(images), 30)
        found = dict(super().run(images))
        found["boxes"] = np.broadcast_to(np.array([0, 0, 8, 8], np.float32), (*shape, 4))
        found["scores"] = np.broadcast_to(np.linspace(0.9, 0.5, rows, dtype=np.float32), shape)
        found["labels"] = np.broadcast_to(np.arange(rows) % 4, shape)
        found["num_detections"] = np.full(len(images), rows)
        return found


@pytest.fixture
def ask_many(settings: Settings) -> Callable[..., Any]:
    async def ask(**changes: object) -> Any:  # noqa: ANN401 - JSON
        engine = Engine(ManyBoxes(), make_contract(max_detections=30))
        app = create_app(settings.model_copy(update=changes), engine)
        async with app.router.lifespan_context(app), connect(app) as client:
            return (await send(client)).json()["predictions"]

    return ask


async def send(client: httpx.AsyncClient, path: str = DETECTION, **fields: bytes) -> httpx.Response:
    body, content_type = make_form(image=PICTURE, **fields)
    return await client.post(path, content=body, headers={"Content-Type": content_type})


async def test_boxes_come_in_whole_pixels_best_first(client: httpx.AsyncClient) -> None:
    response = await send(client)
    assert response.status_code == 200
    said = response.json()
    # The network saw 64x48 as 32x24: its pixels are two of the picture's.
    assert said.pop("predictions") == [
        {"label": "bicycle", "confidence": 0.9, "x_min": 8, "y_min": 8, "x_max": 40, "y_max": 24},
        {"label": "person", "confidence": 0.6, "x_min": 0, "y_min": 0, "x_max": 64, "y_max": 48},
    ]
    times = [said.pop("inferenceMs"), said.pop("processMs")]
    assert said == {"success": True, "count": 2}
    assert all(type(milliseconds) is int and milliseconds >= 0 for milliseconds in times)


@pytest.mark.parametrize(
    ("confidence", "boxes"), [(b"0.1", 3), (b"0.45", 2), (b"0.7", 1), (b"1", 0), (b"1e-05", 3), (b"", 2)]
)
async def test_a_form_says_how_sure_boxes_have_to_be(client: httpx.AsyncClient, confidence: bytes, boxes: int) -> None:
    assert (await send(client, min_confidence=confidence)).json()["count"] == boxes


@pytest.mark.parametrize("confidence", [b"1.1", b"-1", b"nan", b"0,4", b"high"])
async def test_no_other_number_is_taken(client: httpx.AsyncClient, confidence: bytes) -> None:
    response = await send(client, min_confidence=confidence)
    assert response.status_code == 422
    assert "min_confidence" in response.json()["error"]


async def test_the_twenty_best_boxes_come_where_nobody_asks_for_more(ask_many: Callable[..., Any]) -> None:
    found = await ask_many()
    assert len(found) == 20
    confidences = [one["confidence"] for one in found]
    assert confidences == sorted(confidences, reverse=True)
    assert confidences[0] == pytest.approx(0.9)
    assert len(await ask_many(deepstack_max_detections=25)) == 25
    assert len(await ask_many(deepstack_max_detections=90)) == 30


async def test_names_are_spelled_as_in_coco(settings: Settings) -> None:
    session, names = ManyBoxes(), []
    for first in (0, 4):
        app = create_app(
            settings, Engine(session, make_contract(max_detections=30, detection_classes=VOC[first : first + 4]))
        )
        async with app.router.lifespan_context(app), connect(app) as client:
            names += [one["label"] for one in (await send(client)).json()["predictions"][:4]]
    assert names == COCO


@pytest.mark.parametrize("name", ["unihead", "general"])
async def test_the_model_answers_by_its_name(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.post("/v1/vision/custom/list")).json() == {"success": True, "models": ["unihead"]}
    assert (await send(client, f"/v1/vision/custom/{name}")).json()["count"] == 2


async def test_a_model_that_is_not_there_is_refused(client: httpx.AsyncClient) -> None:
    response = await send(client, "/v1/vision/custom/ipcam-general")
    assert response.status_code == 404
    assert response.json() == {
        "success": False,
        "error": "there is no model 'ipcam-general'; there is 'unihead'",
        "code": 404,
    }


async def test_a_scene_is_the_most_probable_class(client: httpx.AsyncClient) -> None:
    said = (await send(client, "/v1/vision/scene")).json()
    probable = (await client.post("/classify", content=PICTURE)).json()["classes"][0]
    assert (said["success"], said["label"], said["confidence"]) == (True, probable["label"], probable["probability"])


@pytest.mark.parametrize("path", ["/v1/status", "/v1/status/ping", "/v1/status/updateavailable"])
async def test_the_status_is_that_of_readiness(app: FastAPI, path: str) -> None:
    async with connect(app) as client:
        response = await client.get(path)
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert (response.json()["success"], response.json()["code"]) == (False, 503)
        async with app.router.lifespan_context(app):
            assert (await client.get(path)).json() == {"success": True, "message": "ready", "updateAvailable": False}


async def test_what_a_client_sends_beside_is_passed_over(client: httpx.AsyncClient) -> None:
    response = await send(client, api_key=b"", admin_key=b"x", userid=b"somebody", model=b"yolo")
    assert response.json()["count"] == 2


@pytest.mark.parametrize(
    ("field", "content", "status", "says"),
    [
        ("file", PICTURE, 400, "256 bytes"),
        ("file", b"", 400, "0 fields named `image`"),
        ("image", b"", 400, "no bytes"),
        ("image", b"hello", 415, "JPEG, PNG or WebP"),
        ("image", b"/9j/4AAQSkZJRg", 415, "-F image=@photo.jpg"),
        ("image", PICTURE[:200], 422, "JPEG"),
    ],
)
async def test_a_refusal_says_why_in_the_words_that_clients_read(
    client: httpx.AsyncClient, field: str, content: bytes, status: int, says: str
) -> None:
    body, content_type = make_form(**{field: content})
    response = await client.post(DETECTION, content=body, headers={"Content-Type": content_type})
    said = response.json()
    assert (response.status_code, said["success"], said["code"]) == (status, False, status)
    assert says in said["error"]
    assert set(said) == {"success", "error", "code"}


@pytest.mark.parametrize(("path", "task"), [(DETECTION, "detect"), ("/v1/vision/scene", "classify")])
async def test_a_model_without_the_task_is_no_unknown_model(settings: Settings, path: str, task: str) -> None:
    app = create_app(settings, Engine(FakeSession(), make_contract(tasks=("segment",))))
    async with app.router.lifespan_context(app), connect(app) as client:
        response = await send(client, path)
    assert response.status_code == 404
    assert task in response.json()["error"]


async def test_the_setting_switches_all_of_it_off(settings: Settings, contract: ModelContract) -> None:
    app = create_app(settings.model_copy(update={"deepstack": False}), Engine(FakeSession(), contract))
    async with app.router.lifespan_context(app), connect(app) as client:
        assert (await send(client)).status_code == 404
        assert (await client.get("/v1/status")).status_code == 404
        assert not [path for path in (await client.get("/openapi.json")).json()["paths"] if path.startswith("/v1")]


async def test_passes_are_shared_and_counted_as_everywhere(client: httpx.AsyncClient) -> None:
    first = await send(client)
    again = await client.post("/detect", content=PICTURE)
    assert (first.headers["x-unihead-cache"], again.headers["x-unihead-cache"]) == ("miss", "hit")
    assert await count(client, 'unihead_ms_per_image_count{stage="total",task="deepstack"}') == 1
    assert (
        await count(
            client, f'unihead_http_requests_total{{method="POST",protocol="http",route="{DETECTION}",status="200"}}'
        )
        == 1
    )
    await send(client, "/v1/vision/custom/general")
    template = "/v1/vision/custom/{name}"
    assert (
        await count(
            client, f'unihead_http_requests_total{{method="POST",protocol="http",route="{template}",status="200"}}'
        )
        == 1
    )
