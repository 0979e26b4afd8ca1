from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.engine.contract import ModelContract, ModelTask
from service.engine.engine import Engine
from service.engine.golden import answer_golden
from service.settings import Settings
from tests.service.clients import connect
from tests.service.fakes import FakeSession, make_contract
from tests.service.harness import Harness
from tests.service.subsets import SUBSETS


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


@pytest.fixture(scope="session")
def write_model(write_tiny_model: Callable[..., Path]) -> Callable[..., Path]:
    """Write a model file of some tasks, with its golden answers, as an export does."""

    def write(path: Path, tasks: tuple[ModelTask, ...], **changes: Any) -> Path:  # noqa: ANN401 - fields of the contract
        contract = make_contract(tasks=tasks, **changes)
        golden = answer_golden(Engine(FakeSession(), contract))
        temporary = write_tiny_model(path.with_suffix(".new"), dataclasses.replace(contract, golden=golden))
        return temporary.replace(path)

    return write


@pytest.fixture(params=SUBSETS, ids="+".join)
def tasks(request: pytest.FixtureRequest) -> tuple[ModelTask, ...]:
    """Each subset of the tasks that a model may serve."""
    found: tuple[ModelTask, ...] = request.param
    return found


@pytest.fixture
def model_of_tasks(tmp_path: Path, write_model: Callable[..., Path], tasks: tuple[ModelTask, ...]) -> Path:
    return write_model(tmp_path / "model.onnx", tasks)


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
