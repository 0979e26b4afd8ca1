"""The app: routes, problems and metrics around one engine, which lives from start to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import simplejpeg
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, ProcessCollector

from service.api import routes, status
from service.api.deepstack import routes as deepstack
from service.api.gates import AuthMiddleware, ShedMiddleware, TracingMiddleware, describe_keys
from service.api.key_ring import KeyRing
from service.api.middleware import HeadMiddleware, RequestMiddleware, allow_origins
from service.api.oip import metadata
from service.api.oip import routes as oip
from service.api.problems import Problem, install_problem_handlers
from service.api.router import RouteTable, declare_path_parameters, name_operation
from service.api.source import SourceMiddleware
from service.api.state import ServiceState
from service.engine.engine import Engine
from service.errors import ContractError
from service.machine import find_version
from service.pictures.imaging import decode, letterbox
from service.rollout.loading import load_live, load_verified
from service.rollout.reload import Reloader
from service.rollout.shadow import Shadow
from service.scheduling.admission import Admission
from service.scheduling.batches import PassRunner
from service.scheduling.cache import Cache
from service.scheduling.scheduler import Scheduler
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.profile import open_profile
from service.telemetry.tracing import open_tracing

if TYPE_CHECKING:
    from service.telemetry.spans import Tracing

_DESCRIPTION = """One small vision model that segments, detects and classifies a picture in a single forward pass.

`curl --data-binary @photo.jpg localhost:8000/predict`

A model may be made for fewer of the three tasks. Its contract says which (`tasks` in `GET /info`); the paths of the
others answer 404 `task_not_served`.
"""


_WATCH_EVERY_S = 0.25


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Add what no route says by itself: the shape of problems, parameters of paths, and keys if there are some."""
        schema = super().openapi()
        schema["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        declare_path_parameters(schema)
        if self.state.service.keys is not None:
            describe_keys(schema, self.state.routes)
        return schema


def create_app(settings: Settings, engine: Engine | None = None, tracing: Tracing | None = None) -> FastAPI:
    """Build the app; it reads its keys, loads and warms its model when it is started, not before.

    Args:
        settings: keys, limits, threads and the model file. Without a key file everybody is answered: whether that may
            be is for those to decide who know who reaches it (`service.server.serve`).
        engine: used instead of `settings.model`.
        tracing: used instead of `settings.tracing`.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    state = ServiceState(settings, Metrics(registry))
    if settings.keys is not None:
        state.keys = KeyRing(settings.keys, timeout_s=settings.reload_timeout_s, count=state.metrics.count_key_reload)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if state.keys is not None:
            await asyncio.to_thread(state.keys.load)
        with open_profile(settings.profile) as state.profile:
            async with open_tracing(tracing, enabled=settings.tracing) as state.tracing, _run_engine(state, engine):
                yield

    app = _App(
        title="unihead",
        version=find_version("unihead"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,  # it and /docs are routes of service.api.status
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        servers=[{"url": "."}],  # where the document itself is, behind whatever prefix
        generate_unique_id_function=name_operation,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # it asks at every request whether there is any
    )
    app.state.service = state
    routers = [routes.router, status.router, metadata.router, oip.router]
    if settings.deepstack:
        routers.append(deepstack.router)
    if settings.metrics_port is None:
        routers.append(status.metrics_router)
    if settings.docs:
        routers.append(status.docs_router)
    for router in routers:
        app.include_router(router)
    table = app.state.routes = RouteTable(routers)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(ShedMiddleware, routes=table, state=state)
    if tracing is not None or settings.tracing:
        app.add_middleware(TracingMiddleware, routes=table, state=state)
    if state.keys is not None:
        count = state.metrics.unauthorized_requests.inc
        form_keys = settings.deepstack_form_keys
        app.add_middleware(AuthMiddleware, routes=table, ring=state.keys, count=count, form_keys=form_keys)
    share = {"share": partial(allow_origins, origins=settings.cors_origins)} if settings.cors_origins else {}
    hosts, origins = settings.allowed_hosts, settings.cors_origins
    app.add_middleware(
        SourceMiddleware, hosts=hosts, origins=origins, trust_forwarded_host=settings.trust_forwarded_host
    )
    # The last one added comes first.
    app.add_middleware(RequestMiddleware, metrics=state.metrics, is_vital=table.is_vital, **share)
    install_problem_handlers(app)
    return app


@asynccontextmanager
async def _run_engine(state: ServiceState, engine: Engine | None) -> AsyncIterator[None]:
    """Load, warm up, serve, stop.

    Raises:
        ContractError: the model file cannot be used.
    """
    settings, metrics = state.settings, state.metrics
    if engine is None:
        engine = await asyncio.to_thread(load_live, settings, must_carry_answers=False)
    else:
        await asyncio.to_thread(engine.warm_up)
    await asyncio.to_thread(_warm_up_decoder)
    scheduler = _build_scheduler(engine, state)
    reloader = Reloader(
        name="model",
        load=partial(load_live, settings, must_carry_answers=True),
        timeout_s=settings.reload_timeout_s,
        swap=scheduler.swap,
        describe=lambda: scheduler.engine.contract.version,
        expected=ContractError,
        count=metrics.count_reload,
    )
    watcher = asyncio.ensure_future(_watch(scheduler, metrics))
    shadow = None
    try:
        shadow = await asyncio.to_thread(_build_shadow, scheduler, state)
        state.scheduler, state.reloader = scheduler, reloader
        yield
    finally:
        state.scheduler = state.reloader = None
        watcher.cancel()
        await reloader.stop()
        await scheduler.stop()
        if shadow is not None:
            await asyncio.to_thread(shadow.stop)


async def _watch(scheduler: Scheduler, metrics: Metrics) -> None:
    """A few times a second, for ever: note how late the event loop is, and replace workers that are stuck."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _WATCH_EVERY_S
        await asyncio.sleep(_WATCH_EVERY_S)
        metrics.event_loop_lag.observe(max(0.0, loop.time() - due))  # what every request waits before it is looked at
        scheduler.relieve_workers()


def _build_scheduler(engine: Engine, state: ServiceState) -> Scheduler:
    settings, metrics = state.settings, state.metrics
    runner = PassRunner(
        metrics, parallel=settings.cpu_threads, max_batch=settings.max_batch, max_delay_ms=settings.max_delay_ms
    )
    return Scheduler(
        engine,
        runner,
        metrics,
        admission=Admission(limit=settings.queue_limit, count_refusal=metrics.count_refusal),
        memory=state.memory,
        cache=Cache(max_bytes=settings.cache_max_bytes, max_age_s=settings.cache_max_age_s),
        workers=settings.workers,
        limits=settings.picture_limits,
    )


def _build_shadow(scheduler: Scheduler, state: ServiceState) -> Shadow | None:
    settings = state.settings
    if settings.shadow is None:
        return None
    shadow = Shadow(
        load_verified(settings.shadow, settings),
        state.metrics,
        memory=state.memory,
        live=lambda: scheduler.engine,
        percent=settings.shadow_percent,
        limits=settings.picture_limits,
    )
    scheduler.after_pass = shadow.offer
    return shadow


def _warm_up_decoder() -> None:
    """Decode and resize once: the first picture is slow."""
    picture = decode(simplejpeg.encode_jpeg(np.zeros((16, 16, 3), dtype=np.uint8)))
    letterbox(picture, 32, (0, 0, 0))
