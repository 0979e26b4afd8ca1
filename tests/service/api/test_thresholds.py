"""A request that names no threshold gets that of the model which answers it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.engine.contract import MODEL_TASKS, ModelContract
from service.settings import Settings
from tests.service.clients import PICTURE, ask, connect
from tests.service.fakes import make_contract, make_form

pytestmark = pytest.mark.anyio


@pytest.fixture
def contract(request: pytest.FixtureRequest) -> ModelContract:
    """Of a model that finds boxes of 0.9, 0.6 and 0.2."""
    return make_contract(**getattr(request, "param", {"score_threshold": 0.7}))


async def count_boxes(client: httpx.AsyncClient, path: str) -> int:
    return len((await ask(client, path))["detections"])


def find_slider(page: str) -> str:
    found = re.search(r'<input id="threshold"[^>]* value="(\d+)"', page)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("contract", [{"score_threshold": 0.7}, {"score_threshold": 0.5}, {}], indirect=True)
@pytest.mark.parametrize("path", ["/detect", "/predict", "/predict?tasks=detect"])
async def test_the_default_is_the_models(client: httpx.AsyncClient, contract: ModelContract, path: str) -> None:
    expected = {0.7: 1, 0.5: 2, 0.3: 2}[contract.score_threshold]
    assert await count_boxes(client, path) == expected


@pytest.mark.parametrize(("threshold", "boxes"), [("0", 3), ("0.3", 2), ("0.7", 1), ("1", 0)])
async def test_a_request_that_names_one_gets_it(client: httpx.AsyncClient, threshold: str, boxes: int) -> None:
    assert await count_boxes(client, f"/detect?score_threshold={threshold}") == boxes
    body, content_type = make_form(file=PICTURE, score_threshold=threshold.encode())
    answer = await ask(client, "/detect", body, content_type=content_type)
    assert len(answer["detections"]) == boxes


async def test_what_is_drawn_by_default_is_what_is_answered_by_default(client: httpx.AsyncClient) -> None:
    drawn = [
        (await client.post(f"/overlay?format=png{more}", content=PICTURE)).content
        for more in ("", "&score_threshold=0.7", "&score_threshold=0.5")
    ]
    assert drawn[0] == drawn[1] != drawn[2]


async def test_info_tells_it_and_the_page_begins_there(client: httpx.AsyncClient) -> None:
    assert (await client.get("/info")).json()["contract"]["score_threshold"] == 0.7
    assert find_slider((await client.get("/")).text) == "70"


async def test_before_there_is_a_model_the_page_is_there_all_the_same() -> None:
    async with connect(create_app(Settings())) as client:  # whose lifespan has not begun
        assert find_slider((await client.get("/")).text) == "30"


async def test_the_schema_names_no_default_for_another_model_may_come(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    for path in ("/detect", "/predict", "/overlay"):
        (found,) = (one for one in paths[path]["post"]["parameters"] if one["name"] == "score_threshold")
        assert found["schema"].keys() - {"title", "description"} == {"type", "minimum", "maximum"}
        assert "of the model's contract" in found["description"]


async def test_after_a_reload_it_is_the_new_models(tmp_path: Path, write_model: Callable[..., Path]) -> None:
    model = write_model(tmp_path / "model.onnx", MODEL_TASKS, score_threshold=0.7)
    app = create_app(Settings(model=model, threads=1))
    async with app.router.lifespan_context(app), connect(app) as client:
        assert await count_boxes(client, "/detect") == 1
        write_model(model, MODEL_TASKS, score_threshold=0.1)
        assert (await app.state.service.reloader.reload()).outcome == "swapped"
        assert await count_boxes(client, "/detect") == 3
        assert find_slider((await client.get("/")).text) == "10"
