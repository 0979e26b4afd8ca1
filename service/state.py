"""What a running app holds; every route finds it under `app.state.service`."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from service.engine import Engine
from service.errors import NotReady
from service.metrics import Metrics
from service.scheduler import Scheduler
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Running:
    """What exists while the model is warm: the engine, who runs it, and the threads beside it."""

    engine: Engine
    scheduler: Scheduler
    pool: Executor


@dataclass(slots=True)
class ServiceState:
    """Settings and metrics of one app, and what runs in it between start and stop."""

    settings: Settings
    metrics: Metrics
    running: Running | None = None

    def require_running(self) -> Running:
        """Return what runs.

        Raises:
            NotReady: before the model is loaded and warm, and after the stop.
        """
        if self.running is None:
            raise NotReady("no model is loaded and warm; ask GET /readyz and try again")
        return self.running


def state_of(request: Request) -> ServiceState:
    """Return the state of the app that takes this request."""
    return cast("ServiceState", request.app.state.service)
