"""A second model that sees a share of the traffic and answers nobody: what would change if it took over."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from service.engine.contract import CLASSES_OF, ModelContract, ModelTask
from service.engine.engine import Engine
from service.engine.postprocess import Answer, Detection
from service.engine.prepare import prepare
from service.errors import ContractError
from service.memory import Hold, MemoryBudget
from service.pictures.header import check_picture
from service.pictures.imaging import UInt8Array
from service.pictures.limits import PictureLimits, estimate_bytes
from service.telemetry.metrics import Metrics

logger = logging.getLogger("unihead")

_QUEUE_LIMIT = 8
_NICENESS = 15
# Boxes that overlap so much count as the same object.
_IOU_THRESHOLD = 0.5


class Shadow:
    """One thread of low priority that runs both models on some pictures, one after the other, and compares them.

    Both, because only then are the times comparable: the live model's own passes run beside others.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        *,
        memory: MemoryBudget,
        live: Callable[[], Engine],
        percent: float,
        limits: PictureLimits,
        choose: Callable[[], float] = random.random,
    ) -> None:
        """Start the thread.

        Args:
            engine: the model in the shadow, warm.
            metrics: where agreement and times are counted.
            memory: that pictures take as long as they wait, and while they are decoded; what does not fit is dropped.
            live: the model that answers.
            percent: of the forward passes, 0..100.
            limits: of pictures, as the service has them.
            choose: a number from 0 to 1; a picture is taken where it is below the share.

        Raises:
            ContractError: its tasks or classes are not those of the live model.
        """
        require_same_classes(live(), engine)
        self._engine = engine
        self._metrics = metrics
        self._memory = memory
        self._live = live
        self._share = percent / 100
        self._limits = limits
        self._choose = choose
        self._pictures: queue.Queue[tuple[bytes, Hold] | None] = queue.Queue(_QUEUE_LIMIT)
        metrics.show_shadow(version=engine.contract.version, sha256=engine.sha256, tasks=engine.contract.tasks)
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, body: bytes) -> None:
        """Perhaps take a picture that has been answered; never waits, and drops what is too much."""
        if self._choose() >= self._share:
            return
        hold = self._memory.begin(len(body))
        try:
            if hold is None:
                raise queue.Full
            self._pictures.put_nowait((body, hold))
        except queue.Full:
            self._metrics.shadow_dropped.inc()
            if hold is not None:
                hold.close()

    def stop(self) -> None:
        """Finish what was taken, and end the thread."""
        self._pictures.put(None)
        self._thread.join()

    def _work(self) -> None:
        if sys.platform.startswith("linux"):  # elsewhere niceness is the whole process's
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while (taken := self._pictures.get()) is not None:
            body, waiting = taken
            try:
                self._look_at(body)
            except BaseException:  # the live model has answered this picture, so the shadow must not fall over it
                logger.exception("the shadow model failed")
                self._metrics.shadow_failures.inc()
            waiting.close()

    def _look_at(self, body: bytes) -> None:
        header = check_picture(body, self._limits)
        sizes = (engine.contract.input_size for engine in (self._live(), self._engine))
        hold = self._memory.begin(max(estimate_bytes(header, size) for size in sizes))
        if hold is None:
            self._metrics.shadow_dropped.inc()
            return
        with contextlib.closing(hold):
            self._compare(body)

    def _compare(self, body: bytes) -> None:
        live, live_ms = self._run(self._live(), body)
        shadow, shadow_ms = self._run(self._engine, body)
        agreement = compare(live, shadow)
        self._metrics.observe_shadow(**dataclasses.asdict(agreement), live_ms=live_ms, shadow_ms=shadow_ms)

    def _run(self, engine: Engine, body: bytes) -> tuple[Answer, float]:
        """Return the answer, and the milliseconds of its pass."""
        square, place = prepare(body, engine.contract, limits=self._limits)
        started = time.perf_counter()
        (prediction,) = engine.predict([square])
        return Answer(prediction, place, engine.contract), (time.perf_counter() - started) * 1000


def require_same_classes(one: Engine, two: Engine) -> None:
    """Refuse to compare models that name other things.

    Raises:
        ContractError: they serve other tasks, or some task has other classes, or another order of them.
    """
    if one.contract.tasks != two.contract.tasks:
        tasks = [", ".join(engine.contract.tasks) for engine in (two, one)]
        raise ContractError(f"the shadow model serves {tasks[0]}, the one that answers {tasks[1]}")
    for names in CLASSES_OF.values():
        if getattr(one.contract, names) != getattr(two.contract, names):
            raise ContractError(f"the shadow model has other {names.replace('_', ' ')} than the one that answers")


def find_common_tasks(one: ModelContract, two: ModelContract) -> set[ModelTask]:
    """Find the tasks that two models both serve, with the same classes in the same order."""
    both = set(one.tasks) & set(two.tasks)
    return {task for task in both if getattr(one, CLASSES_OF[task]) == getattr(two, CLASSES_OF[task])}


@dataclass(frozen=True, slots=True)
class Agreement:
    """Three figures from 0 (nothing in common) to 1 (the same); None of a task that is not compared.

    Attributes:
        top_1: 1 where both name the same class first, else 0.
        mask_iou: mean over the classes in either mask of intersection over union.
        box_f1: harmonic mean of the shares of boxes that have a partner of their class; 1 where neither has boxes.
    """

    top_1: float | None
    mask_iou: float | None
    box_f1: float | None


def compare(one: Answer, two: Answer) -> Agreement:
    """Compare what two models say about one picture, in pixels of the original; of boxes, what callers see by default.

    Args:
        one: of one model.
        two: of the other; compared in the tasks that both serve with the same classes.
    """
    top_1 = mask_iou = box_f1 = None
    # After a reload the live model may serve other tasks, or give other names to the same numbers.
    both = find_common_tasks(one.contract, two.contract)
    if "classify" in both:
        top_1 = float(one.prediction.class_probs.argmax() == two.prediction.class_probs.argmax())
    if "segment" in both:
        mask_iou = compute_mask_iou(one.mask(), two.mask())
    if "detect" in both:
        boxes = [
            said.detections(score_threshold=None, max_detections=said.contract.max_detections) for said in (one, two)
        ]
        box_f1 = compute_box_f1(*boxes)
    return Agreement(top_1=top_1, mask_iou=mask_iou, box_f1=box_f1)


def compute_mask_iou(one: UInt8Array, two: UInt8Array) -> float:
    """Mean intersection over union of two masks [H, W], over the classes that occur in either."""
    ones, twos = np.bincount(one.ravel(), minlength=256), np.bincount(two.ravel(), minlength=256)
    both = np.bincount(one[one == two], minlength=256)
    union = ones + twos - both
    return float((both[union > 0] / union[union > 0]).mean())


def compute_box_f1(one: Sequence[Detection], two: Sequence[Detection]) -> float:
    """F1 of two lists of boxes, best first; each box finds at most one partner of its class."""
    if not one and not two:
        return 1.0
    free = list(range(len(two)))
    pairs = 0
    for detection in one:
        overlaps = {i: compute_iou(detection.box, two[i].box) for i in free if two[i].label == detection.label}
        best = max(overlaps, key=overlaps.__getitem__, default=None)
        if best is not None and overlaps[best] >= _IOU_THRESHOLD:
            free.remove(best)
            pairs += 1
    return 2 * pairs / (len(one) + len(two))


def compute_iou(one: tuple[float, float, float, float], two: tuple[float, float, float, float]) -> float:
    """Intersection over union of two boxes xyxy; 0 where both are empty."""
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    both = max(0.0, width) * max(0.0, height)
    union = (one[2] - one[0]) * (one[3] - one[1]) + (two[2] - two[0]) * (two[3] - two[1]) - both
    return both / union if union > 0 else 0.0
