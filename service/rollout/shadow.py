"""A second model that sees a share of the traffic and answers nobody: what would change if it took over."""

from __future__ import annotations

import dataclasses
import logging
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable

from service.engine.engine import Engine, Prediction
from service.engine.prepare import prepare
from service.errors import ContractError
from service.pictures.imaging import Letterbox
from service.pictures.limits import PictureLimits
from service.rollout.agreement import compare
from service.telemetry.metrics import Metrics

logger = logging.getLogger("unihead")

_QUEUE_LIMIT = 8
_NICENESS = 15


class Shadow:
    """One thread of low priority that runs both models on some pictures, one after the other, and compares them.

    Both, because only then are the times comparable: the live model's own passes run beside others.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        *,
        live: Callable[[], Engine],
        percent: float,
        limits: PictureLimits,
        choose: Callable[[], float] = random.random,
    ) -> None:
        """Start the thread.

        Args:
            engine: the model in the shadow, warm.
            metrics: where agreement and times are counted.
            live: the model that answers.
            percent: of the forward passes, 0..100.
            limits: of pictures, as the service has them.
            choose: a number from 0 to 1; a picture is taken where it is below the share.

        Raises:
            ContractError: its classes are not those of the live model.
        """
        require_same_classes(live(), engine)
        self._engine = engine
        self._metrics = metrics
        self._live = live
        self._share = percent / 100
        self._limits = limits
        self._choose = choose
        self._pictures: queue.Queue[bytes | None] = queue.Queue(_QUEUE_LIMIT)
        metrics.show_shadow(version=engine.contract.version, sha256=engine.sha256)
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, body: bytes) -> None:
        """Perhaps take a picture that has been answered; never waits, and drops what is too much."""
        if self._choose() >= self._share:
            return
        try:
            self._pictures.put_nowait(body)
        except queue.Full:
            self._metrics.shadow_dropped.inc()

    def stop(self) -> None:
        """Finish what was taken, and end the thread."""
        self._pictures.put(None)
        self._thread.join()

    def _work(self) -> None:
        if sys.platform.startswith("linux"):  # elsewhere niceness is the whole process's
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while (body := self._pictures.get()) is not None:
            try:
                self._look_at(body)
            except BaseException:  # the live model has answered this picture, so the shadow must not fall over it
                logger.exception("the shadow model failed")
                self._metrics.shadow_failures.inc()

    def _look_at(self, body: bytes) -> None:
        live = self._live()
        said, place, live_ms = self._run(live, body)
        would_say, other_place, shadow_ms = self._run(self._engine, body)
        agreement = compare((said, place, live.contract), (would_say, other_place, self._engine.contract))
        self._metrics.observe_shadow(**dataclasses.asdict(agreement), live_ms=live_ms, shadow_ms=shadow_ms)

    def _run(self, engine: Engine, body: bytes) -> tuple[Prediction, Letterbox, float]:
        square, place = prepare(body, engine.contract, limits=self._limits)
        started = time.perf_counter()
        (prediction,) = engine.predict([square])
        return prediction, place, (time.perf_counter() - started) * 1000


def require_same_classes(one: Engine, two: Engine) -> None:
    """Refuse to compare models that name other things.

    Raises:
        ContractError: some task has other classes, or another order of them.
    """
    for task in ("segmentation", "detection", "classification"):
        if getattr(one.contract, f"{task}_classes") != getattr(two.contract, f"{task}_classes"):
            raise ContractError(f"the shadow model has other {task} classes than the one that answers")
