"""Numbers in headers and queries that no number of ours can be: refused, by whichever reader meets them first."""

from __future__ import annotations

import httpx
import pytest

from tests.service.clients import PICTURE, refuse

pytestmark = pytest.mark.anyio

INFER = "/v2/models/unihead/infer"
NINES, ZEROS = "9" * 5000, "0" * 5000


@pytest.mark.parametrize("value", ["0000000001" + NINES, ZEROS + "1", "00006000009999999", "0", "-1", "nan", "1e3"])
async def test_timeouts(client: httpx.AsyncClient, value: str) -> None:
    detail = await refuse(client, "/classify", PICTURE, 422, "invalid_parameter", X_Request_Timeout_Ms=value)
    assert len(detail) < 200


@pytest.mark.parametrize("value", [NINES, ZEROS, "+1", "1_0"])
async def test_lengths_of_json(client: httpx.AsyncClient, value: str) -> None:
    response = await client.post(INFER, content=PICTURE, headers={"Inference-Header-Content-Length": value})
    assert response.status_code == 400
    assert len(response.json()["error"]) < 200


@pytest.mark.parametrize("path", ["/classify", INFER])
@pytest.mark.parametrize("value", [ZEROS + "9", NINES, "\u00b2", "-1"])
async def test_lengths_of_bodies(client: httpx.AsyncClient, path: str, value: str) -> None:
    response = await client.post(path, content=PICTURE, headers=[(b"content-length", value.encode("latin-1"))])
    assert response.status_code == 400


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("/classify", "top_k", "1" + "0" * 30),
        ("/classify", "top_k", NINES),
        ("/classify", "top_k", "1_0"),
        ("/classify", "top_k", "%2B1"),
        ("/classify", "top_k", "%201"),
        ("/classify", "top_k", "5.0"),
        ("/detect", "max_detections", ZEROS + "1"),
        ("/detect", "score_threshold", "0." + NINES),
        ("/detect", "score_threshold", "-0.0"),
        ("/detect", "score_threshold", "1e308"),
        ("/overlay", "opacity", "inf"),
        ("/overlay", "max_side", "31"),
        ("/overlay", "max_side", ZEROS + "64"),
    ],
)
async def test_numbers_of_queries(client: httpx.AsyncClient, path: str, name: str, value: str) -> None:
    detail = await refuse(client, f"{path}?{name}={value}", PICTURE, 422, "invalid_parameter")
    assert f"query parameter '{name}' is" in detail
    assert len(detail) < 250


async def test_a_query_of_thousands_of_parameters_is_not_read(client: httpx.AsyncClient) -> None:
    query = "&".join(f"a{number}=1" for number in range(3500))
    assert "more than 32 parameters" in await refuse(client, f"/classify?{query}", PICTURE, 422, "invalid_parameter")


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=" + NINES,
        "text/plain;version=x",
        "text/plain; version=\u00b2",
        "application/openmetrics-text; version=2.0.0, text/plain;version=0.0.4",
        "," * 31_000,
    ],
)
async def test_versions_of_metrics(client: httpx.AsyncClient, accept: str) -> None:
    response = await client.get("/metrics", headers=[(b"accept", accept.encode("latin-1"))])
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")


async def test_metrics_come_as_a_prometheus_asks_for_them(client: httpx.AsyncClient) -> None:
    accept = (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.2"
    )
    response = await client.get("/metrics", headers={"Accept": accept})
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
