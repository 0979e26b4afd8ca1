"""What tests ask an app with: a client without sockets, a picture, and short words for the usual questions."""

from __future__ import annotations

from typing import Any

import httpx
from fastapi import FastAPI

from tests.service.fakes import encode, make_picture

PICTURE = encode(make_picture(64, 48), "JPEG")


def connect(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://unihead")


async def ask(client: httpx.AsyncClient, path: str, body: bytes = PICTURE, **headers: str) -> Any:  # noqa: ANN401 - JSON
    response = await client.post(path, content=body, headers={name.replace("_", "-"): v for name, v in headers.items()})
    assert response.status_code == 200, response.text
    return response.json()


async def refuse(client: httpx.AsyncClient, path: str, body: bytes, status: int, code: str, **headers: str) -> str:
    response = await client.post(path, content=body, headers={name.replace("_", "-"): v for name, v in headers.items()})
    problem = response.json()
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    return str(problem["detail"])


async def count(client: httpx.AsyncClient, sample: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(sample))
