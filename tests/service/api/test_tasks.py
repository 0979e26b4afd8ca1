"""Models that serve some of the tasks: each answers for what it has, and 404 for what it has not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.api.state import ServiceState
from service.app import create_app
from service.client import AsyncClient, TaskNotServed
from service.engine.contract import MODEL_TASKS, ModelTask
from service.engine.engine import Engine
from service.settings import Settings
from tests.service.clients import PICTURE, ask, connect, refuse
from tests.service.fakes import FakeSession, make_contract
from tests.service.subsets import fields_of, outputs_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def app(model_of_tasks: Path) -> FastAPI:
    return create_app(Settings(model=model_of_tasks, threads=1))


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with app.router.lifespan_context(app), connect(app) as connected:
        yield connected


async def test_each_path_answers_or_says_what_is_served(
    client: httpx.AsyncClient, tasks: tuple[ModelTask, ...]
) -> None:
    for task in MODEL_TASKS:
        if task in tasks:
            assert set(await ask(client, f"/{task}")) == fields_of((task,))
            assert set(await ask(client, f"/predict?tasks={task}")) == fields_of((task,))
            continue
        for path in (f"/{task}", f"/predict?tasks={task}", f"/predict?tasks={tasks[0]},{task}"):
            detail = await refuse(client, path, PICTURE, 404, "task_not_served")
            assert detail == f"this model does not serve {task}; it serves {', '.join(tasks)} (`GET /info`)"
    assert set(await ask(client, "/predict")) == fields_of(tasks)
    both = await client.post("/predict", files=[("file", PICTURE), ("file", PICTURE)])
    assert [set(one) for one in both.json()] == [fields_of(tasks)] * 2
    # What is said about another task is of no consequence, as with `tasks`.
    assert set(await ask(client, "/predict?mask=polygons&top_k=2&score_threshold=0.9")) == fields_of(tasks)
    most = await client.post("/predict?max_detections=5", content=PICTURE)
    assert most.status_code == (422 if "detect" in tasks else 200)


async def test_a_mask_alone_is_as_much_a_task(client: httpx.AsyncClient, tasks: tuple[ModelTask, ...]) -> None:
    response = await client.post("/segment", content=PICTURE, headers={"Accept": "image/png"})
    assert response.headers["content-type"] == ("image/png" if "segment" in tasks else "application/problem+json")
    assert response.status_code == (200 if "segment" in tasks else 404)


async def test_a_refusal_comes_before_the_body(client: httpx.AsyncClient, tasks: tuple[ModelTask, ...]) -> None:
    read: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        read.append(PICTURE)
        yield PICTURE

    paths = [f"/{task}" for task in MODEL_TASKS if task not in tasks]
    if tasks == ("classify",):
        paths.append("/overlay")
    for path in [*paths, *(f"/predict?tasks={path[1:]}" for path in paths if path != "/overlay")]:
        response = await client.post(path, content=body())
        assert (response.status_code, response.json()["code"]) == (404, "task_not_served")
    assert read == []


async def test_what_there_is_is_drawn(client: httpx.AsyncClient, tasks: tuple[ModelTask, ...]) -> None:
    if tasks == ("classify",):
        detail = await refuse(client, "/overlay", PICTURE, 404, "task_not_served")
        assert detail == "this model does not serve segment or detect; it serves classify (`GET /info`)"
        return
    drawn = await client.post("/overlay", content=PICTURE)
    assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/jpeg")


async def test_clients_of_triton_see_the_outputs_that_there_are(
    client: httpx.AsyncClient, tasks: tuple[ModelTask, ...]
) -> None:
    wanted = outputs_of(tasks)
    said = (await client.get("/v2/models/unihead")).json()["outputs"]
    assert [one["name"] for one in said] == wanted
    answer = await client.post(
        "/v2/models/unihead/infer",
        json={"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [0] * 3072}]},
    )
    assert [one["name"] for one in answer.json()["outputs"]] == wanted
    for metadata, made in zip(said, answer.json()["outputs"], strict=True):
        assert metadata["datatype"] == made["datatype"]
        assert all(one in {-1, two} for one, two in zip(metadata["shape"], made["shape"], strict=True))
    raw = await client.post(
        "/v2/models/unihead/infer", content=PICTURE, headers={"Inference-Header-Content-Length": "0"}
    )
    assert raw.status_code == 200
    for name in set(outputs_of(MODEL_TASKS)) - set(wanted):
        images = {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["aGVsbG8="]}
        body = {"inputs": [images], "outputs": [{"name": name}]}
        refused = await client.post("/v2/models/unihead/infer", json=body)
        assert (refused.status_code, refused.json()) == (
            400,
            {"error": f"there is no output '{name}'; there are {', '.join(wanted)}"},
        )


async def test_info_and_the_document_say_it(client: httpx.AsyncClient, tasks: tuple[ModelTask, ...]) -> None:
    contract = (await client.get("/info")).json()["contract"]
    assert tuple(contract["tasks"]) == tasks
    document = (await client.get("/openapi.json")).json()
    assert "task_not_served" in document["info"]["description"]
    for path in ("segment", "detect", "classify", "predict", "overlay"):  # another model may come
        assert "task_not_served" in document["paths"][f"/{path}"]["post"]["responses"]["404"]["description"]
    shapes = document["components"]["schemas"]
    for shape, names in (
        ("Detection", "detection_classes"),
        ("ClassScore", "classification_classes"),
        ("Segment", "segmentation_classes"),
    ):
        assert f"position in `{names}`" in shapes[shape]["properties"]["label_id"]["description"]


async def test_the_client_reads_what_there_is(app: FastAPI, tasks: tuple[ModelTask, ...]) -> None:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        AsyncClient("http://unihead", http=httpx.AsyncClient(transport=transport)) as client,
    ):
        result = await client.predict(PICTURE)
        assert (bool(result.segments), bool(result.detections), bool(result.classes)) == tuple(
            task in tasks for task in MODEL_TASKS
        )
        assert (result.mask is not None) == ("segment" in tasks)
        assert result.overlay().size == (result.width, result.height)
        for task in MODEL_TASKS:
            method = getattr(client, task)
            if task in tasks:
                await method(PICTURE)
                continue
            with pytest.raises(TaskNotServed, match="it serves") as raised:
                await method(PICTURE)
            assert (raised.value.status, raised.value.code) == (404, "task_not_served")


async def test_a_reload_may_bring_other_tasks(write_model: Callable[..., Path], tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.onnx", ("segment", "detect"))
    app = create_app(Settings(model=path, threads=1))
    async with app.router.lifespan_context(app), connect(app) as client:
        assert set(await ask(client, "/predict")) == fields_of(("segment", "detect"))
        write_model(path, ("detect", "classify"), version="next")
        assert (await app.state.service.reloader.reload()).outcome == "swapped"
        response = await client.post("/predict", content=PICTURE)
        assert set(response.json()) == fields_of(("detect", "classify"))
        assert response.headers["X-Unihead-Cache"] == "miss"
        await refuse(client, "/segment", PICTURE, 404, "task_not_served")
        assert (await ask(client, "/classify"))["model"]["version"] == "next"
        assert (await client.get("/info")).json()["contract"]["tasks"] == ["detect", "classify"]


async def test_a_picture_that_meets_the_next_model_is_told_the_same(
    write_model: Callable[..., Path], tmp_path: Path
) -> None:
    """Its request was let in while the model had masks; its body came when another one had taken over."""
    app = create_app(Settings(model=write_model(tmp_path / "model.onnx", ("segment", "classify")), threads=1))
    async with app.router.lifespan_context(app), connect(app) as client:
        state: ServiceState = app.state.service

        async def body() -> AsyncIterator[bytes]:
            state.require_scheduler().swap(Engine(FakeSession(), next_contract, sha256=next_contract.version))
            yield PICTURE

        for path, status in (("/segment", 404), ("/overlay", 404), ("/predict?tasks=segment", 404), ("/predict", 200)):
            for accept in ("application/json", "image/png"):
                next_contract = make_contract(tasks=("segment", "classify"), version=f"masks{path}{accept}")
                state.require_scheduler().swap(Engine(FakeSession(), next_contract, sha256=next_contract.version))
                next_contract = make_contract(tasks=("classify",), version=f"classes{path}{accept}")
                response = await client.post(path, content=body(), headers={"Accept": accept})
                assert response.status_code == status, response.text
                if status == 404:
                    assert response.json()["code"] == "task_not_served"
                else:
                    assert set(response.json()) == fields_of(("classify",))
