"""What a running app holds; every route finds it under `app.state.service`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, cast

from starlette.requests import Request

from service.api.key_ring import KeyRing
from service.engine.engine import Engine
from service.errors import Draining, NotReady
from service.memory import MemoryBudget
from service.rollout.reload import Reloader
from service.scheduling.scheduler import Scheduler
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.profile import Profile

if TYPE_CHECKING:
    from service.telemetry.spans import Tracing


@dataclass(slots=True)
class ServiceState:
    """Settings and metrics of one app, its keys if it asks for some, and what takes pictures from start to stop.

    Attributes:
        draining: the service leaves: it answers what it is asked, and should be asked no more.
    """

    settings: Settings
    metrics: Metrics
    memory: MemoryBudget = field(init=False)
    scheduler: Scheduler | None = None
    draining: bool = False
    reloader: Reloader[Engine] | None = None
    profile: Profile | None = None
    tracing: Tracing | None = None
    keys: KeyRing | None = None

    def __post_init__(self) -> None:
        """Begin to count bytes."""
        self.memory = MemoryBudget(self.settings.memory_budget, lambda: self.metrics.count_refusal("memory"))
        taken = self.memory.taken
        self.metrics.show_memory({use: partial(taken.__getitem__, use) for use in taken}, self.memory.limit)

    def require_scheduler(self) -> Scheduler:
        """Return what takes pictures.

        Raises:
            NotReady: before the model is loaded and warm, and after the stop.
        """
        if self.scheduler is None:
            raise NotReady("no model is loaded and warm; ask GET /readyz and try again")
        return self.scheduler

    def require_ready(self) -> None:
        """Return if more requests should be sent here.

        Raises:
            NotReady: see `require_scheduler`.
            Draining: the service leaves.
        """
        self.require_scheduler()
        if self.draining:
            raise Draining("the service is about to stop and answers what it was asked; ask another one")

    def is_ready(self) -> bool:
        """Whether more requests should be sent here."""
        return self.scheduler is not None and not self.draining

    def drain(self) -> None:
        """Be not ready from now on."""
        self.draining = True


def state_of(request: Request) -> ServiceState:
    """Return the state of the app that takes this request."""
    return cast("ServiceState", request.app.state.service)
