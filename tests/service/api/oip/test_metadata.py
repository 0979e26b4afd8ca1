"""Triton's statistics and model configuration extensions."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from google.protobuf import json_format

from service.app import create_app
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.settings import Settings
from tests.service.clients import PICTURE, ask, connect
from tests.service.fakes import FakeSession
from tests.triton_types import model_config_pb2

pytestmark = pytest.mark.anyio

MODEL = "/v2/models/unihead"


async def read_stats(client: httpx.AsyncClient, path: str = f"{MODEL}/stats") -> dict[str, Any]:
    (found,) = (await client.get(path)).json()["model_stats"]
    return dict(found)


@pytest.mark.parametrize("path", ["/v2/models/stats", f"{MODEL}/stats", f"{MODEL}/versions/1/stats"])
async def test_statistics_count_passes_hits_and_failures(client: httpx.AsyncClient, path: str) -> None:
    before = await read_stats(client, path)
    assert (before["name"], before["version"], before["inference_count"]) == ("unihead", "1", 0)
    assert before["last_inference"] == 0
    assert before["batch_stats"] == []
    await ask(client, "/detect")
    await ask(client, "/classify")
    await client.post("/predict", content=b"no picture")
    after = await read_stats(client, path)
    assert (after["inference_count"], after["execution_count"]) == (1, 1)
    inference = after["inference_stats"]
    counts = {name: duration["count"] for name, duration in inference.items()}
    assert counts == {
        "success": 2,
        "fail": 1,
        "queue": 2,
        "compute_input": 1,
        "compute_infer": 1,
        "compute_output": 1,
        "cache_hit": 1,
    }
    assert all(duration["ns"] > 0 for duration in inference.values())
    (batch,) = after["batch_stats"]
    assert (batch["batch_size"], batch["compute_infer"]["count"]) == (1, 1)
    assert after["last_inference"] > 1.7e12


@pytest.mark.parametrize("path", [f"{MODEL}/config", f"{MODEL}/versions/1/config"])
async def test_the_configuration_is_one_that_triton_reads(client: httpx.AsyncClient, path: str) -> None:
    said = (await client.get(path)).json()
    config = json_format.ParseDict(said, model_config_pb2.ModelConfig())
    assert (config.name, config.max_batch_size, config.backend) == ("unihead", 0, "onnxruntime")
    metadata = (await client.get(MODEL)).json()
    for given, told in ((config.input, metadata["inputs"]), (config.output, metadata["outputs"])):
        assert [(one.name, list(one.dims)) for one in given] == [(one["name"], one["shape"]) for one in told]
    names = {"BYTES": "TYPE_STRING"}
    types = [model_config_pb2.DataType.Name(one.data_type) for one in (*config.input, *config.output)]
    assert types == [
        names.get(one["datatype"], f"TYPE_{one['datatype']}") for one in (*metadata["inputs"], *metadata["outputs"])
    ]
    assert not config.HasField("dynamic_batching")
    assert config.response_cache.enable


async def test_a_service_that_makes_batches_says_so(contract: ModelContract) -> None:
    app = create_app(Settings(max_batch=4, max_delay_ms=1.5, cache_max_bytes=0), Engine(FakeSession(), contract))
    async with app.router.lifespan_context(app), connect(app) as client:
        config = json_format.ParseDict((await client.get(f"{MODEL}/config")).json(), model_config_pb2.ModelConfig())
        await ask(client, "/detect", PICTURE)
        batch_sizes = [batch["batch_size"] for batch in (await read_stats(client))["batch_stats"]]
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    assert config.dynamic_batching.max_queue_delay_microseconds == 1500
    assert not config.response_cache.enable
    assert batch_sizes == [1]


@pytest.mark.parametrize("what", ["config", "stats"])
@pytest.mark.parametrize("model", ["other", "unihead/versions/2"])
async def test_of_other_models_nothing_is_told(client: httpx.AsyncClient, model: str, what: str) -> None:
    response = await client.get(f"/v2/models/{model}/{what}")
    assert response.status_code == 404
    assert list(response.json()) == ["error"]
