"""Threads that take pictures from bytes to answers, and spare ones for those that are stuck.

Python cannot end a thread, and a decoder may take minutes over a picture that was made for it. Such a picture keeps its
thread, at the lowest priority, and its memory, and another thread takes its place.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

from service.memory import Hold, MemoryBudget, Share

logger = logging.getLogger("unihead")

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")

# An ordinary picture takes 10 ms, the costliest that is allowed 300 ms.
PATIENCE_S = 1.0
MAX_SPARES = 8
_STUCK_NICENESS = 19
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """What one call of `submit` asks for."""

    future: Future[Any]
    call: Callable[[], Any]
    work: int
    share: Share | None


class _Worker(threading.Thread):
    """One thread; a daemon, so that one which is stuck does not keep the process from ending.

    Attributes:
        busy_since: when it began its task, as the pool's clock counts; None while it has none.
        hold: memory of its task.
        is_replaced: a spare thread has taken its place, and it ends with its task.
    """

    def __init__(self, work: Callable[[_Worker], None], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.busy_since: float | None = None
        self.hold: Hold | None = None
        self.is_replaced = False
        self._work = work

    def run(self) -> None:
        self._work(self)


class WorkerPool:
    """As many tasks at once as there are workers, those that are stuck not counted, and as there is memory for.

    First come, first served: a task that does not fit yet lets nobody pass. Only one that would not fit either if all
    that runs were over is passed by, because stuck tasks or clients hold what it needs: nobody knows for how long.

    Attributes:
        patience_s: seconds after which a task is stuck.
    """

    def __init__(
        self,
        workers: int,
        *,
        name: str,
        memory: MemoryBudget,
        patience_s: float = PATIENCE_S,
        max_spares: int = MAX_SPARES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the threads.

        Args:
            workers: tasks at once.
            name: of the threads.
            memory: that tasks take before they begin; the pool listens for what is given back.
            patience_s: seconds after which a task is stuck.
            max_spares: stuck threads that are replaced at most.
            clock: in seconds.
        """
        self.patience_s = patience_s
        self._name = name
        self._max_spares = max_spares
        self._clock = clock
        self._memory = memory
        self._tasks: deque[_Task] = deque()
        self._lock = threading.Lock()
        self._may_begin = threading.Condition(self._lock)
        self._workers: set[_Worker] = set()
        self._is_shut = False
        self._is_short = False
        memory.on_release = self._wake
        for _ in range(workers):
            self._start()

    def submit(
        self, function: Callable[[*Arguments], T], *args: *Arguments, work: int = 0, share: Share | None = None
    ) -> Future[T]:
        """Put a task into the queue; until a worker takes it, it can be cancelled.

        Args:
            function: the task.
            args: of it.
            work: bytes of memory that it needs while it runs.
            share: of the request whose answer it makes, whose room is taken with it.

        Raises:
            RuntimeError: after `shutdown`.
        """
        future: Future[T] = Future()
        with self._may_begin:
            if self._is_shut:
                raise RuntimeError("the workers have been shut down and take no task any more")
            self._tasks.append(_Task(future, partial(function, *args), work, share))
            self._may_begin.notify()
        return future

    @property
    def is_short(self) -> bool:
        """Whether a task waits for memory."""
        return self._is_short and bool(self._tasks)

    def cancel(self, future: Future[Any]) -> bool:
        """Take a task out of the queue; False if a worker has taken it."""
        if not future.cancel():
            return False
        with self._may_begin:
            self._tasks = deque(task for task in self._tasks if task.future is not future)
            self._may_begin.notify()  # others may have waited behind it
        return True

    def _wake(self) -> None:
        """Memory was given back: look again whether a task fits."""
        if self._tasks:
            with self._may_begin:
                self._may_begin.notify()

    def count_stuck(self) -> int:
        """Count the workers whose task has outlasted the patience."""
        with self._lock:
            return sum(map(self._is_stuck, self._workers))

    def relieve(self) -> int:
        """Start a spare thread for each worker that has got stuck; to be called every so often.

        Returns:
            The workers that were replaced.
        """
        with self._may_begin:
            self._mark_stuck()
            spares = self._max_spares - sum(worker.is_replaced for worker in self._workers)
            stuck = [worker for worker in self._workers if self._is_stuck(worker) and not worker.is_replaced]
            for count, worker in enumerate(stuck[:spares]):
                try:
                    self._start()
                except RuntimeError as error:  # the system has no more threads for us; perhaps the next time
                    logger.warning("a picture holds a worker, and no spare one can be started: %s", error)
                    return count
                worker.is_replaced = True
                _lower_priority(worker)
            return len(stuck[:spares])

    def _mark_stuck(self) -> None:
        """With the lock: let nobody wait for the memory of what is stuck."""
        for worker in self._workers:
            if worker.hold is not None and not worker.hold.is_stuck and self._is_stuck(worker):
                self._memory.mark_stuck(worker.hold)
                self._may_begin.notify()

    def shutdown(self) -> None:
        """Take nothing more; wait for what was taken, but not for what is stuck."""
        with self._may_begin:
            self._is_shut = True
            self._may_begin.notify_all()
        while working := self._relieve_and_list():
            working[0].join(_LOOK_EVERY_S)

    def _relieve_and_list(self) -> list[_Worker]:
        self.relieve()
        with self._lock:
            return [worker for worker in self._workers if not self._is_stuck(worker)]

    def _is_stuck(self, worker: _Worker) -> bool:
        return worker.busy_since is not None and self._clock() - worker.busy_since >= self.patience_s

    def _start(self) -> None:
        worker = _Worker(self._work, self._name)
        worker.start()
        self._workers.add(worker)

    def _work(self, worker: _Worker) -> None:
        """In a worker: take one task after another, until the shutdown or a spare thread."""
        while not worker.is_replaced:
            task = self._take(worker)
            if task is None:
                break
            _run(task, worker.hold)
            del task  # while it waits for the next one, it keeps neither the picture nor its answer
            with self._lock:
                worker.busy_since = worker.hold = None
        with self._lock:
            self._workers.discard(worker)

    def _take(self, worker: _Worker) -> _Task | None:
        """Wait for a task that fits, and take its memory; None after the shutdown, when none is left."""
        with self._may_begin:
            while True:
                task = self._find(worker)
                if task is not None:
                    worker.busy_since = self._clock()
                    if self._tasks:
                        self._may_begin.notify()  # the next one may fit too
                    return task
                if self._is_shut and not self._tasks:
                    self._may_begin.notify_all()
                    return None
                self._may_begin.wait()

    def _find(self, worker: _Worker) -> _Task | None:
        """With the lock: take the first task that fits out of the queue, passing by those that are not worth a wait."""
        while self._tasks and self._tasks[0].future.cancelled():
            self._tasks.popleft()
        for task in self._tasks:
            worker.hold = self._memory.begin(task.work, task.share)
            if worker.hold is not None:
                self._tasks.remove(task)
                self._is_short = False
                return task
            self._is_short = True
            if self._memory.may_begin(task.work, task.share):
                break
        return None


def _run(task: _Task, hold: Hold | None) -> None:
    """Run a task, and give its memory back before anybody hears that it is over."""
    with contextlib.ExitStack() as stack:
        if hold is not None:
            stack.callback(hold.close)
        if not task.future.set_running_or_notify_cancel():
            return
        outcome: Any = None
        error: BaseException | None = None
        try:
            outcome = task.call()
        except BaseException as failure:  # noqa: BLE001 - who waits for the future must hear of it, whatever it is
            error = failure
    if error is None:
        task.future.set_result(outcome)
    else:
        task.future.set_exception(error)


def _lower_priority(worker: _Worker) -> None:
    """Let a stuck worker compute only while nobody else wants to; it ends with its task, so this need not be undone."""
    if sys.platform.startswith("linux") and worker.native_id is not None:  # elsewhere niceness is the whole process's
        with contextlib.suppress(OSError):  # it has ended meanwhile
            os.setpriority(os.PRIO_PROCESS, worker.native_id, _STUCK_NICENESS)
