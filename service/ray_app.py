"""The same app on Ray Serve, for more than one machine: `serve run service.ray_app:app threads=2`.

A replica is one whole service: its own model, queue, cache and metrics. Ray's proxy shares requests out, so that
requests about one picture meet in one replica by chance only. Needs the extra `ray`.

Ray's proxy listens, not the service, which therefore cannot know whether strangers reach it: UNIHEAD_KEYS names the
key file, UNIHEAD_AUTH=off says that none is wanted, and neither is a warning in the log of every replica.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, Field
from ray import serve
from ray.serve import Application
from ray.util.metrics import Gauge

from service.api.state import ServiceState
from service.app import create_app
from service.machine import keep_freed_memory
from service.settings import Settings

logger = logging.getLogger("unihead")

_MIRROR_EVERY_S = 5


class Arguments(BaseModel):
    """What may follow `serve run service.ray_app:app`, or stand under `args` in a config file."""

    threads: int = Field(1, ge=1, description="forward passes at once of one replica; so many CPUs it asks Ray for")


def app(arguments: Arguments) -> Application:
    """Build the deployment; everything else comes from the environment (`service.settings`) or Serve's config file."""

    def build() -> FastAPI:
        keep_freed_memory()
        return build_replica(Settings(threads=arguments.threads))

    deploy = serve.deployment(
        name="unihead",
        ray_actor_options={"num_cpus": arguments.threads},
        # Ray's queue before ours: what a replica takes it answers or refuses by itself, with Retry-After.
        max_ongoing_requests=100,
        graceful_shutdown_timeout_s=20,
    )
    bound: Application = deploy(serve.ingress(build)()).bind()
    return bound


def build_replica(settings: Settings) -> FastAPI:
    """Build the app of one replica, whose metrics Ray's own agent exports, each name with `ray_` before it."""
    if settings.auth is None and settings.keys is None:
        logger.warning("no key is asked for: whoever reaches Ray's proxy may ask; UNIHEAD_KEYS names a key file")
    built = create_app(settings)
    state: ServiceState = built.state.service
    run = built.router.lifespan_context

    @asynccontextmanager
    async def lifespan(running: FastAPI) -> AsyncIterator[None]:
        async with run(running):
            mirroring = asyncio.ensure_future(_mirror(state.metrics.registry))
            try:
                yield
            finally:
                mirroring.cancel()

    built.router.lifespan_context = lifespan
    return built


async def _mirror(registry: CollectorRegistry) -> None:
    """Hand all metrics to Ray again and again, as gauges: it has no counters or buckets that can be set."""
    gauges: dict[str, Gauge] = {}
    while True:
        for metric in registry.collect():
            for sample in metric.samples:
                if sample.name.endswith("_created"):
                    continue
                if sample.name not in gauges:
                    gauges[sample.name] = Gauge(sample.name, metric.documentation, tuple(sample.labels))
                gauges[sample.name].set(sample.value, dict(sample.labels))
        await asyncio.sleep(_MIRROR_EVERY_S)
