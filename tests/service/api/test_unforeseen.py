"""Whatever breaks, and wherever: one answer without detail, one count, one traceback in the log, and on it goes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

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
from tests.service.clients import connect
from tests.service.fakes import FakeSession, encode, make_picture, write_keys

pytestmark = pytest.mark.anyio

PICTURE = encode(make_picture())
DETAIL = 'secret: "/home/somebody/model.onnx", unihead 0.1.0, Traceback (most recent call last)'
INFER = "/v2/models/unihead/infer"
KEY = "k" * 40


class Panic(BaseException):
    """As what a library in Rust raises."""


def fail(*_: object, **__: object) -> NoReturn:
    raise RuntimeError(DETAIL)


def panic(*_: object, **__: object) -> NoReturn:
    raise Panic(DETAIL)


async def fail_later(*_: object, **__: object) -> NoReturn:
    raise RuntimeError(DETAIL)


# Where it breaks: what is replaced there, and by what.
LAYERS: dict[str, tuple[str, Callable[..., Any]]] = {
    "the keys": ("service.api.gates.find_presented_key", fail),
    "before the routes": ("service.scheduling.scheduler.Scheduler.shed", fail),
    "the route": ("service.api.respond.read_timeout_s", fail),
    "reading the body": ("service.api.bodies.is_form", fail),
    "the scheduler": ("service.scheduling.scheduler.Scheduler.submit", fail_later),
    "the name of a picture": ("service.scheduling.scheduler.identify", fail),
    "admission": ("service.scheduling.admission.Admission.admit", fail),
    "the decoder, in a worker": ("service.scheduling.pipeline.prepare", fail),
    "a panic in a worker": ("service.scheduling.pipeline.prepare", panic),
    "the model": ("service.engine.engine.Engine.predict_each", fail),
    "a panic in the model": ("service.engine.engine.Engine.predict_each", panic),
    "boxes of the answer": ("service.pictures.imaging.Letterbox.boxes_to_original", fail),
    "a panic in the answer": ("service.pictures.imaging.Letterbox.mask_to_original", panic),
    "counting": ("service.telemetry.metrics.Metrics.observe_task", fail),
    "the answer": ("service.api.{answering}.Response", fail),
    "the mask's file": ("service.answers.render.encode_mask", fail),
    "JSON of the answer": ("service.answers.schemas.PredictResponse.model_dump_json", fail),
    "tensors of the answer": ("service.api.oip.routes.write_answer", fail),
}
LAYERS_OF = {
    "/predict": set(LAYERS) - {"tensors of the answer"},
    INFER: set(LAYERS) - {"the mask's file", "JSON of the answer", "reading the body"},
}


@pytest.fixture
def app(settings: Settings, contract: ModelContract, tmp_path: Path) -> FastAPI:
    keyed = settings.model_copy(update={"keys": write_keys(tmp_path / "keys", somebody=KEY)})
    return create_app(keyed, Engine(FakeSession(), contract, sha256="c0ffee"))


def assert_tells_nothing(response: httpx.Response) -> None:
    assert response.status_code == 500
    text = response.text + repr(response.headers)
    for word in ("secret", "somebody", "Traceback", ".py", "RuntimeError", "Panic", "uvicorn", "starlette", "0.1.0"):
        assert word not in text
    assert re.findall(r"/[a-z]+", response.text.replace("application/problem", "")) == []


@pytest.mark.parametrize(("path", "layer"), [(path, layer) for path in LAYERS_OF for layer in sorted(LAYERS_OF[path])])
async def test_an_exception_anywhere_is_500_without_detail(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, path: str, layer: str
) -> None:
    place, harm = LAYERS[layer]
    headers = {"X-Request-ID": "mine", "X-API-Key": KEY}
    if path == INFER:
        headers["Inference-Header-Content-Length"] = "0"
    async with app.router.lifespan_context(app), connect(app) as client:
        with monkeypatch.context() as broken:
            answering = "oip.routes" if path == INFER else "respond"
            broken.setattr(place.format(answering=answering), harm)
            response = await client.post(path, content=PICTURE, headers=headers)
        assert_tells_nothing(response)
        if path == INFER:
            assert set(response.json()) == {"error"}
        else:
            assert response.json()["code"] == "internal_error"
        assert response.headers["x-request-id"] == "mine"
        (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
        assert record.exc_info is not None
        assert record.fields == {"request_id": "mine"}  # type: ignore[attr-defined]  # put there by `extra`
        # It has done no harm that lasts: the same picture is answered, and nothing is held or counted twice.
        assert (await client.post(path, content=PICTURE, headers=headers)).status_code == 200
        async with asyncio.timeout(5):  # a worker counts itself out a moment after the answer
            scraped = ""
            while "unihead_worker_images 0.0" not in scraped:
                await asyncio.sleep(0.001)
                scraped = (await client.get("/metrics", headers=headers)).text
    for line in ("unihead_images_in_flight 0.0", "unihead_queue_images 0.0"):
        assert line in scraped
    assert scraped.count('status="500"} 1.0') == 1


async def test_a_panic_in_a_batch_fails_it_and_nobody_waits_for_ever(contract: ModelContract) -> None:
    class Panicking(FakeSession):
        def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
            if self.passes == 2:
                self.passes += 1
                raise Panic
            return super().run(images)

    app = create_app(Settings(threads=2, max_batch=4, max_delay_ms=1), Engine(Panicking(), contract))
    async with app.router.lifespan_context(app), connect(app) as client:
        assert (await client.post("/predict", content=PICTURE)).status_code == 500
        assert (await client.post("/predict", content=PICTURE)).status_code == 200
