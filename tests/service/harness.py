"""A scheduler with everything around it, for tests that ask it directly."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from service.engine.engine import Engine
from service.engine.postprocess import Answer
from service.memory import MemoryBudget, Share
from service.pictures.imaging import UInt8Array
from service.pictures.limits import PictureLimits
from service.scheduling.admission import Admission
from service.scheduling.batches import PassRunner
from service.scheduling.cache import Cache
from service.scheduling.job import Effort, Job
from service.scheduling.scheduler import Scheduler
from service.telemetry.metrics import CacheResult, Metrics
from service.telemetry.timing import Stopwatch
from tests.service.fakes import FakeSession, encode, make_contract, make_picture

LIMITS = PictureLimits(max_pixels=10_000)


class GatedSession(FakeSession):
    """Holds every pass until `gate` is set; notes how many run at once."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.inside = self.most_inside = 0
        self._lock = threading.Lock()

    def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
        with self._lock:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        assert self.gate.wait(10)
        try:
            return super().run(images)
        finally:
            with self._lock:
                self.inside -= 1


class Harness:
    """A scheduler with everything that it needs, and short words to ask it."""

    def __init__(
        self,
        *,
        queue_limit: int = 64,
        workers: int = 2,
        cache_max_bytes: int = 2**20,
        limits: PictureLimits = LIMITS,
        memory_bytes: int = 2**30,
    ) -> None:
        self.session = GatedSession()
        self.metrics = Metrics(CollectorRegistry())
        self.admission = Admission(limit=queue_limit, count_refusal=self.metrics.count_refusal)
        self.memory = MemoryBudget(memory_bytes)
        self.scheduler = Scheduler(
            Engine(self.session, make_contract(), sha256="c0ffee"),
            PassRunner(self.metrics, parallel=2),
            self.metrics,
            admission=self.admission,
            memory=self.memory,
            cache=Cache(max_bytes=cache_max_bytes, max_age_s=60),
            workers=workers,
            limits=limits,
        )

    async def ask(
        self,
        body: bytes,
        finish: Callable[[Answer, Stopwatch], Answer] | None = None,
        *,
        timeout_s: float = 10,
        fresh: bool = False,
        owner: str = "",
        effort: Effort = "some",
        making: int = 0,
        share: Share | None = None,
    ) -> tuple[Answer, CacheResult]:
        job = Job(
            body,
            finish or keep,
            Stopwatch(),
            timeout_s=timeout_s,
            fresh=fresh,
            owner=owner,
            effort=effort,
            making=making,
            share=share,
        )
        return await self.scheduler.submit(job)

    def begin(self, *args: Any, **options: Any) -> asyncio.Task[tuple[Answer, CacheResult]]:  # noqa: ANN401 - of `ask`
        return asyncio.create_task(self.ask(*args, **options))

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    @property
    def passes(self) -> float:
        return self.count("unihead_forward_passes_total")


def keep(answer: Answer, watch: Stopwatch) -> Answer:
    watch.lap("encode")
    return answer


def body_of(seed: int) -> bytes:
    return encode(make_picture(seed=seed))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - threads change what is waited for, without a word
            await asyncio.sleep(0.001)
