from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait

import pytest

from service.scheduling.workers import WorkerPool

PATIENCE_S = 1.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Hanging:
    """A task that hangs until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.thread: int | None = None

    def __call__(self) -> str:
        self.thread = threading.get_native_id()
        self.begun.set()
        assert self.gate.wait(10)
        return "done at last"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def build(clock: Clock) -> Iterator[Callable[..., WorkerPool]]:
    pools: list[WorkerPool] = []

    def make(workers: int = 1, *, max_spares: int = 8) -> WorkerPool:
        pools.append(WorkerPool(workers, name="test", patience_s=PATIENCE_S, max_spares=max_spares, clock=clock))
        return pools[-1]

    yield make
    for pool in pools:
        pool.shutdown()


def hang(pool: WorkerPool) -> tuple[Hanging, Future[str]]:
    task = Hanging()
    future = pool.submit(task)
    assert task.begun.wait(5)
    return task, future


def threads() -> int:
    return sum(thread.name == "test" for thread in threading.enumerate())


def until(condition: Callable[[], bool]) -> None:
    stop = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < stop
        time.sleep(0.001)


def test_tasks_run_in_the_order_they_came(build: Callable[..., WorkerPool]) -> None:
    pool, done = build(), list[int]()
    wait([pool.submit(done.append, number) for number in range(50)], timeout=5)
    assert done == list(range(50))


def test_results_and_errors_come_by_the_future(build: Callable[..., WorkerPool]) -> None:
    pool = build()
    assert pool.submit(divmod, 7, 2).result(5) == (3, 1)
    assert pool.submit(int, "11", base=2).result(5) == 3
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result(5)
    assert pool.submit(len, "the worker lives on").result(5) == 19


def test_no_more_tasks_run_at_once_than_there_are_workers(build: Callable[..., WorkerPool]) -> None:
    pool = build(3)
    tasks = [hang(pool) for _ in range(3)]
    fourth = pool.submit(len, "")
    time.sleep(0.02)
    assert not fourth.running()
    assert threads() == 3
    for task, _ in tasks:
        task.gate.set()
    assert fourth.result(5) == 0


def test_what_waits_can_be_cancelled_and_what_runs_cannot(build: Callable[..., WorkerPool]) -> None:
    pool, ran = build(), list[str]()
    task, running = hang(pool)
    waiting, last = pool.submit(ran.append, "waiting"), pool.submit(ran.append, "last")
    assert waiting.cancel()
    assert not running.cancel()
    task.gate.set()
    last.result(5)
    assert ran == ["last"]
    with pytest.raises(CancelledError):
        waiting.result()


def test_a_spare_thread_takes_the_place_of_one_that_is_stuck(build: Callable[..., WorkerPool], clock: Clock) -> None:
    pool = build()
    task, future = hang(pool)
    waiting = pool.submit(len, "abc")
    clock.now += PATIENCE_S - 0.01
    assert (pool.relieve(), pool.count_stuck()) == (0, 0)
    clock.now += 0.01
    assert (pool.relieve(), pool.count_stuck()) == (1, 1)
    assert waiting.result(5) == 3
    assert pool.relieve() == 0
    assert threads() == 2
    task.gate.set()
    assert future.result(5) == "done at last"
    until(lambda: threads() == 1)
    assert pool.count_stuck() == 0
    assert pool.submit(len, "abcd").result(5) == 4


def test_a_spare_thread_that_gets_stuck_is_replaced_too(build: Callable[..., WorkerPool], clock: Clock) -> None:
    pool, tasks = build(2), list[Hanging]()
    for _ in range(3):
        tasks += [hang(pool)[0], hang(pool)[0]]
        clock.now += PATIENCE_S
        assert pool.relieve() == 2
    assert pool.submit(len, "abc").result(5) == 3
    assert (pool.count_stuck(), threads()) == (6, 8)
    for task in tasks:
        task.gate.set()
    until(lambda: threads() == 2)


def test_there_are_no_more_spare_threads_than_allowed(build: Callable[..., WorkerPool], clock: Clock) -> None:
    pool = build(1, max_spares=2)
    tasks = []
    for _ in range(3):
        tasks.append(hang(pool)[0])
        clock.now += PATIENCE_S
        pool.relieve()
    assert (pool.count_stuck(), threads()) == (3, 3)
    waiting = pool.submit(len, "abc")
    assert pool.relieve() == 0
    tasks[0].gate.set()
    until(lambda: threads() == 2)
    assert pool.relieve() == 1
    assert waiting.result(5) == 3
    for task in tasks:
        task.gate.set()


@pytest.mark.skipif(sys.platform != "linux", reason="niceness is the whole process's")
def test_a_stuck_thread_computes_only_while_nobody_else_wants_to(
    build: Callable[..., WorkerPool], clock: Clock
) -> None:
    pool = build()
    task, future = hang(pool)
    assert task.thread is not None
    before = os.getpriority(os.PRIO_PROCESS, task.thread)
    clock.now += PATIENCE_S
    pool.relieve()
    assert os.getpriority(os.PRIO_PROCESS, task.thread) == 19
    task.gate.set()
    future.result(5)
    assert os.getpriority(os.PRIO_PROCESS, pool.submit(threading.get_native_id).result(5)) == before
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_where_no_thread_can_be_started_it_is_tried_again(
    build: Callable[..., WorkerPool], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = build()
    task, _ = hang(pool)
    clock.now += PATIENCE_S

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        assert pool.relieve() == 0
    assert pool.relieve() == 1
    task.gate.set()


def test_a_worker_that_waits_holds_nothing_of_its_last_task(build: Callable[..., WorkerPool]) -> None:
    class Picture:
        pass

    pool, picture = build(), Picture()
    pool.submit(id, picture).result(5)
    gone = weakref.ref(picture)
    del picture
    until(lambda: gone() is None)


def test_the_shutdown_waits_for_all_that_was_taken(build: Callable[..., WorkerPool]) -> None:
    pool = build(2)
    task, running = hang(pool)
    waiting = [pool.submit(time.sleep, 0.005) for _ in range(10)]
    threading.Timer(0.03, task.gate.set).start()
    pool.shutdown()
    assert running.done()
    assert all(future.done() for future in waiting)
    assert threads() == 0
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(len, "")


def test_the_shutdown_does_not_wait_for_what_is_stuck_but_for_what_waits_behind_it(
    build: Callable[..., WorkerPool], clock: Clock
) -> None:
    pool = build()
    task, future = hang(pool)
    waiting = pool.submit(len, "abc")
    clock.now += PATIENCE_S
    pool.shutdown()
    assert waiting.result(0) == 3
    assert not future.done()
    task.gate.set()
    assert future.result(5) == "done at last"
    until(lambda: threads() == 0)


def test_a_task_cannot_end_its_worker(build: Callable[..., WorkerPool]) -> None:
    pool = build()
    with pytest.raises(SystemExit):
        pool.submit(sys.exit, 3).result(5)
    assert pool.submit(len, "abc").result(5) == 3
