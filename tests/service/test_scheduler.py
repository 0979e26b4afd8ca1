from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from service.engine import Engine
from service.errors import ContractError, DamagedImage, NotReady
from service.imaging import UInt8Array
from service.metrics import Metrics
from service.scheduler import Scheduler
from tests.service.fakes import FakeSession, encode, make_contract, make_picture

pytestmark = pytest.mark.anyio


class WatchedSession(FakeSession):
    """Notes which threads run it, and how many at once."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[str] = set()
        self.inside = self.most_inside = 0

    def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.threads.add(threading.current_thread().name)
        try:
            return super().run(images)
        finally:
            self.inside -= 1


@pytest.fixture
def watched() -> WatchedSession:
    return WatchedSession()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
async def scheduler(watched: WatchedSession, metrics: Metrics) -> AsyncIterator[Scheduler]:
    with ThreadPoolExecutor(max_workers=4) as pool:
        scheduler = Scheduler(Engine(watched, make_contract()), pool, metrics, max_pixels=10_000)
        await scheduler.start()
        yield scheduler
        await scheduler.stop()


async def test_one_picture_takes_one_pass_and_names_its_stages(scheduler: Scheduler, metrics: Metrics) -> None:
    answer = await scheduler.submit(encode(make_picture(64, 48)))
    assert (answer.place.width, answer.place.height, answer.place.resized_height) == (64, 48, 24)
    assert set(answer.timings_ms) == {"queue", "decode", "preprocess", "forward"}
    assert all(milliseconds >= 0 for milliseconds in answer.timings_ms.values())
    count = metrics.registry.get_sample_value
    assert count("unihead_forward_passes_total") == 1.0
    assert count("unihead_ms_per_image_count", {"stage": "queue", "task": "shared"}) == 1.0


async def test_passes_run_one_at_a_time_in_a_thread_of_their_own(scheduler: Scheduler, watched: WatchedSession) -> None:
    bodies = [encode(make_picture(seed=seed)) for seed in range(20)]
    await asyncio.gather(*map(scheduler.submit, bodies))
    assert watched.most_inside == 1
    assert watched.threads == {"forward_0"}


async def test_many_pictures_at_once_never_mix_their_answers(scheduler: Scheduler) -> None:
    pictures = [np.full((9 + i, 30, 3), (5 * i, 250 - 5 * i, 90), dtype=np.uint8) for i in range(40)]
    answers = await asyncio.gather(*(scheduler.submit(encode(picture)) for picture in pictures))
    for i, answer in enumerate(answers):
        assert answer.place.height == 9 + i
        alone = await scheduler.submit(encode(pictures[i]))
        np.testing.assert_array_equal(answer.prediction.class_probs, alone.prediction.class_probs)
    assert len({answer.prediction.class_probs.tobytes() for answer in answers}) == 40


async def test_a_damaged_picture_costs_no_pass(scheduler: Scheduler, watched: WatchedSession) -> None:
    warm = watched.passes
    with pytest.raises(DamagedImage):
        await scheduler.submit(encode(make_picture())[:50])
    assert watched.passes == warm


async def test_nothing_is_taken_before_the_start_and_after_the_stop(metrics: Metrics) -> None:
    with ThreadPoolExecutor() as pool:
        scheduler = Scheduler(Engine(FakeSession(), make_contract()), pool, metrics, max_pixels=10_000)
        with pytest.raises(NotReady):
            await scheduler.submit(encode(make_picture()))
        await scheduler.start()
        await scheduler.stop()
        with pytest.raises(NotReady):
            await scheduler.submit(encode(make_picture()))


async def test_warming_up_is_not_counted(scheduler: Scheduler, watched: WatchedSession, metrics: Metrics) -> None:
    del scheduler
    assert watched.passes == 2
    assert metrics.registry.get_sample_value("unihead_forward_passes_total") == 0.0


async def test_a_model_that_cannot_answer_is_refused_at_the_start(metrics: Metrics) -> None:
    class Dead(FakeSession):
        def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
            raise RuntimeError(f"no kernel for {images.shape}")

    with ThreadPoolExecutor() as pool:
        scheduler = Scheduler(Engine(Dead(), make_contract()), pool, metrics, max_pixels=10_000)
        with pytest.raises(ContractError, match="cannot answer a blank picture: no kernel"):
            await scheduler.start()
