"""The app: routes, problems and metrics around one engine, which lives from start to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import onnxruntime
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, ProcessCollector

from service import routes, status
from service.engine import Engine, load_engine
from service.metrics import Metrics
from service.middleware import RequestMiddleware
from service.problems import Problem, install_problem_handlers
from service.scheduler import Scheduler
from service.settings import Settings
from service.state import Running, ServiceState
from service.versions import find_version

_DESCRIPTION = """One small vision model that segments, detects and classifies a picture in a single forward pass.

`curl --data-binary @photo.jpg localhost:8000/predict`
"""


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Add the shape of problems, which no route returns by itself."""
        schema = super().openapi()
        schema["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        return schema


def create_app(settings: Settings, engine: Engine | None = None) -> FastAPI:
    """Build the app; it loads and warms its model when it is started, not before.

    Args:
        settings: limits, threads and the model file.
        engine: used instead of `settings.model`.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    state = ServiceState(settings, Metrics(registry))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with _run_engine(state, engine):
            yield

    app = _App(
        title="unihead",
        version=find_version("unihead"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,  # it and /docs are routes of service.status
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = state
    app.add_middleware(RequestMiddleware, metrics=state.metrics)
    install_problem_handlers(app)
    app.include_router(routes.router)
    app.include_router(status.router)
    if settings.docs:
        app.include_router(status.docs_router)
    return app


@asynccontextmanager
async def _run_engine(state: ServiceState, engine: Engine | None) -> AsyncIterator[None]:
    """Load, warm up, serve, stop.

    Raises:
        ContractError: the model file cannot be used.
    """
    settings, threads = state.settings, state.settings.cpu_threads
    if engine is None:
        engine = await asyncio.to_thread(load_engine, settings.model, threads=threads)
    contract = engine.contract
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="picture") as pool:
        scheduler = Scheduler(engine, pool, state.metrics, max_pixels=settings.max_pixels)
        await scheduler.start()
        state.metrics.show_model(
            name=contract.name,
            version=contract.version,
            preset=contract.preset,
            sha256=engine.sha256,
            onnxruntime=onnxruntime.__version__,
        )
        state.running = Running(engine, scheduler, pool)
        try:
            yield
        finally:
            state.running = None
            await scheduler.stop()
