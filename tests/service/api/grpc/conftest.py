from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.app import create_app
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.settings import Settings
from service.telemetry.spans import Tracing
from tests.service.api.grpc.asking import Port, open_port
from tests.service.harness import GatedSession


@pytest.fixture
def session() -> GatedSession:
    return GatedSession()


@pytest.fixture
def start(session: GatedSession, contract: ModelContract) -> Callable[..., Any]:
    """Run an app with a gRPC port in this process; options are settings."""

    @asynccontextmanager
    async def run(tracing: Tracing | None = None, **changes: Any) -> AsyncIterator[Port]:  # noqa: ANN401 - settings
        settings = Settings(
            **{"threads": 1, "max_body_bytes": 200_000, "max_pixels": 250_000, "grpc_port": 0, **changes}
        )
        app = create_app(settings, Engine(session, contract, "c0ffee"), tracing)
        async with app.router.lifespan_context(app), open_port(app) as port:
            try:
                yield port
            finally:
                session.gate.set()

    return run


@pytest.fixture
async def port(start: Callable[..., Any]) -> AsyncIterator[Port]:
    async with start() as opened:
        yield opened
