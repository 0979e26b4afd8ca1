from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.memory import MemoryBudget, Share
from service.scheduling.workers import WorkerPool

PATIENCE_S = 1.0
# Of memory, so much that no answer is too small to be waited for.
UNIT = 2**17


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
        memory = MemoryBudget(1000)
        pools.append(
            WorkerPool(workers, name="test", memory=memory, patience_s=PATIENCE_S, max_spares=max_spares, clock=clock)
        )
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
    assert pool.submit(partial(int, "11", base=2)).result(5) == 3
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
    assert pool.cancel(waiting)
    assert not pool.cancel(running)
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
    until(lambda: threads() == 0)
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


def test_a_task_that_does_not_fit_yet_lets_nobody_pass(build: Callable[..., WorkerPool]) -> None:
    pool, order = build(3), list[str]()
    task = Hanging()
    running: Future[Any] = pool.submit(task, work=600)
    assert task.begun.wait(5)
    large = pool.submit(order.append, "large", work=900)
    small = pool.submit(order.append, "small", work=1)
    time.sleep(0.02)
    assert not order
    assert pool.is_short
    task.gate.set()
    wait([running, large, small], timeout=5)
    assert order[0] == "large"
    assert not pool.is_short


def test_others_pass_by_a_task_that_only_a_stuck_one_could_make_room_for(
    build: Callable[..., WorkerPool], clock: Clock
) -> None:
    pool = build(2)
    task = Hanging()
    stuck = pool.submit(task, work=600)
    assert task.begun.wait(5)
    large, small = pool.submit(len, "large", work=900), pool.submit(len, "small", work=400)
    time.sleep(0.02)
    assert not small.done()
    clock.now += PATIENCE_S
    pool.relieve()
    assert small.result(5) == 5
    assert not large.done()
    task.gate.set()
    assert large.result(5) == 5
    stuck.result(5)


def test_a_task_that_is_cancelled_lets_those_behind_it_pass(build: Callable[..., WorkerPool]) -> None:
    pool, task = build(2), Hanging()
    running = pool.submit(task, work=600)
    assert task.begun.wait(5)
    large, small = pool.submit(len, "large", work=900), pool.submit(len, "small", work=400)
    assert pool.cancel(large)
    assert small.result(5) == 5
    task.gate.set()
    running.result(5)


def test_a_spare_thread_waits_for_memory_like_any_other(build: Callable[..., WorkerPool], clock: Clock) -> None:
    pool, task = build(1), Hanging()
    stuck = pool.submit(task, work=700)
    assert task.begun.wait(5)
    clock.now += PATIENCE_S
    assert pool.relieve() == 1
    waiting = pool.submit(len, "abc", work=400)
    time.sleep(0.02)
    assert not waiting.done()
    task.gate.set()
    assert (waiting.result(5), stuck.result(5)) == (3, "done at last")


# Of each request: its work and its answer, and what its client does: it reads the answer, or leaves before or after.
REQUESTS = st.lists(
    st.tuples(st.integers(0, 750), st.integers(0, 250), st.sampled_from(["read", "leave early", "leave late"])),
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(REQUESTS, st.integers(1, 3), st.randoms(use_true_random=False))
def test_whatever_fits_alone_ends_in_any_order_within_the_limit(
    requests: list[tuple[int, int, str]], workers: int, chance: Random
) -> None:
    """Work takes all that it needs in one step and ends by itself, so nobody waits for who waits for them."""
    memory = MemoryBudget(1000 * UNIT)
    pool = WorkerPool(workers, name="test", memory=memory)
    most, ended = [0], list[int]()

    def look(number: int) -> None:
        most[0] = max(most[0], memory.total())
        ended.append(number)

    tasks: list[tuple[Share, Future[None], int, str]] = []
    for number, (work, answer, client) in enumerate(requests):
        share = Share(memory)
        share.expect(answer * UNIT)
        tasks.append((share, pool.submit(look, number, work=work * UNIT, share=share), answer, client))
    chance.shuffle(tasks)
    stayed = []
    for share, future, answer, client in tasks:
        if client == "leave early":
            pool.cancel(future)
            share.close()
        else:
            stayed.append((share, future, answer, client))
    while stayed:  # each answer that is made is read, in any order; those that wait for its room come after
        done = wait([future for _, future, _, _ in stayed], timeout=5, return_when=FIRST_COMPLETED).done
        assert done, "all wait for each other"
        for one in [one for one in stayed if one[1] in done]:
            stayed.remove(one)
            if one[3] == "read":
                one[0].settle(one[2] * UNIT)
            one[0].close()
    pool.shutdown()
    assert most[0] <= memory.limit
    assert memory.total() == 0
    assert len(ended) >= sum(client != "leave early" for _, _, client in requests)
