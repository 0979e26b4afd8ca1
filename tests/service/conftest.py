from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.settings import Settings
from tests.service.clients import connect
from tests.service.fakes import FakeSession, make_contract
from tests.service.harness import Harness


@pytest.fixture
def contract() -> ModelContract:
    return make_contract()


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
def settings() -> Settings:
    return Settings(max_body_bytes=200_000, max_pixels=250_000, threads=2)


@pytest.fixture
def app(settings: Settings, session: FakeSession, contract: ModelContract) -> FastAPI:
    return create_app(settings, Engine(session, contract, sha256="c0ffee"))


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with app.router.lifespan_context(app), connect(app) as connected:
        yield connected


@pytest.fixture(scope="session")
def write_tiny_model() -> Callable[..., Path]:
    """`onnx_models.write_tiny_model`; skips where there is no onnx, which the service itself does without."""
    from tests.service import onnx_models  # noqa: PLC0415 - needs onnx

    return onnx_models.write_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, write_tiny_model: Callable[..., Path]) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx", make_contract())


@pytest.fixture
async def build() -> AsyncIterator[Callable[..., Harness]]:
    harnesses: list[Harness] = []

    def make(**options: Any) -> Harness:  # noqa: ANN401 - those of `Harness`
        harnesses.append(Harness(**options))
        return harnesses[-1]

    yield make
    for harness in harnesses:
        harness.session.gate.set()
        await harness.scheduler.stop()


@pytest.fixture
def harness(build: Callable[..., Harness]) -> Harness:
    return build()
