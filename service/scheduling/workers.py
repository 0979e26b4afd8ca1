"""Threads that take pictures from bytes to answers, and spare ones for those that are stuck.

Python cannot end a thread, and a decoder may take minutes over a picture that was made for it. Such a picture keeps its
thread, at the lowest priority, and another thread takes its place.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, ParamSpec, TypeAlias, TypeVar

logger = logging.getLogger("unihead")

P = ParamSpec("P")
T = TypeVar("T")
_Task: TypeAlias = tuple[Future[Any], Callable[[], Any]]

# An ordinary picture takes 10 ms, the costliest that is allowed 300 ms.
PATIENCE_S = 1.0
MAX_SPARES = 8
_STUCK_NICENESS = 19
_LOOK_EVERY_S = 0.05


class _Worker(threading.Thread):
    """One thread; a daemon, so that one which is stuck does not keep the process from ending.

    Attributes:
        busy_since: when it began its task, as the pool's clock counts; None while it has none.
        is_replaced: a spare thread has taken its place, and it ends with its task.
    """

    def __init__(self, work: Callable[[_Worker], None], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.busy_since: float | None = None
        self.is_replaced = False
        self._work = work

    def run(self) -> None:
        self._work(self)


class WorkerPool:
    """As many tasks at once as there are workers, those that are stuck not counted; first come, first served.

    Attributes:
        patience_s: seconds after which a task is stuck.
    """

    def __init__(
        self,
        workers: int,
        *,
        name: str,
        patience_s: float = PATIENCE_S,
        max_spares: int = MAX_SPARES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the threads.

        Args:
            workers: tasks at once.
            name: of the threads.
            patience_s: seconds after which a task is stuck.
            max_spares: stuck threads that are replaced at most.
            clock: in seconds.
        """
        self.patience_s = patience_s
        self._name = name
        self._max_spares = max_spares
        self._clock = clock
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        self._is_shut = False
        for _ in range(workers):
            self._start()

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Put a task into the queue; until a worker takes it, its future can be cancelled.

        Raises:
            RuntimeError: after `shutdown`.
        """
        if self._is_shut:
            raise RuntimeError("the workers have been shut down and take no task any more")
        future: Future[T] = Future()
        self._tasks.put((future, partial(function, *args, **kwargs)))
        return future

    def count_stuck(self) -> int:
        """Count the workers whose task has outlasted the patience."""
        with self._lock:
            return sum(map(self._is_stuck, self._workers))

    def relieve(self) -> int:
        """Start a spare thread for each worker that has got stuck; to be called every so often.

        Returns:
            The workers that were replaced.
        """
        with self._lock:
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

    def shutdown(self) -> None:
        """Take nothing more; wait for what was taken, but not for what is stuck."""
        self._is_shut = True
        self._tasks.put(None)
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
            task = self._tasks.get()
            if task is None:
                self._tasks.put(None)  # for the next worker
                break
            worker.busy_since = self._clock()
            _run(*task)
            del task  # while it waits for the next one, it keeps neither the picture nor its answer
            with self._lock:
                worker.busy_since = None
        with self._lock:
            self._workers.discard(worker)


def _run(future: Future[Any], function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001 - who waits for the future must hear of it, whatever it is
        future.set_exception(error)
    else:
        future.set_result(result)


def _lower_priority(worker: _Worker) -> None:
    """Let a stuck worker compute only while nobody else wants to; it ends with its task, so this need not be undone."""
    if sys.platform.startswith("linux") and worker.native_id is not None:  # elsewhere niceness is the whole process's
        with contextlib.suppress(OSError):  # it has ended meanwhile
            os.setpriority(os.PRIO_PROCESS, worker.native_id, _STUCK_NICENESS)
