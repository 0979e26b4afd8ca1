from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from service.admission import Admission
from service.cache import Cache
from service.engine import Engine
from service.errors import ClientGone, DamagedImage, DeadlineExceeded, NotReady, Overloaded
from service.flights import Answer
from service.forward import Forward
from service.imaging import UInt8Array
from service.metrics import CacheResult, Metrics
from service.scheduler import Scheduler
from service.timing import Stopwatch
from tests.service.fakes import FakeSession, encode, make_contract, make_picture

pytestmark = pytest.mark.anyio


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


class House:
    """A scheduler with everything that it needs, and short words to ask it."""

    def __init__(self, *, queue_limit: int = 64, workers: int = 2, cache_max_bytes: int = 2**20) -> None:
        self.session = GatedSession()
        self.metrics = Metrics(CollectorRegistry())
        self.admission = Admission(limit=queue_limit)
        self.scheduler = Scheduler(
            Engine(self.session, make_contract(), sha256="c0ffee"),
            Forward(self.metrics, parallel=2),
            self.metrics,
            admission=self.admission,
            cache=Cache(max_bytes=cache_max_bytes, max_age_s=60),
            workers=workers,
            max_pixels=10_000,
        )

    async def ask(self, body: bytes, *, timeout_s: float = 10, fresh: bool = False) -> tuple[Answer, CacheResult]:
        return await self.scheduler.submit(body, keep, watch=Stopwatch(), timeout_s=timeout_s, fresh=fresh)

    def begin(self, body: bytes, *, timeout_s: float = 10) -> asyncio.Task[tuple[Answer, CacheResult]]:
        return asyncio.create_task(self.ask(body, timeout_s=timeout_s))

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


@pytest.fixture
async def build() -> AsyncIterator[Callable[..., House]]:
    houses: list[House] = []

    def make(**options: int) -> House:
        houses.append(House(**options))
        return houses[-1]

    yield make
    for house in houses:
        house.session.gate.set()
        await house.scheduler.stop()


@pytest.fixture
def house(build: Callable[..., House]) -> House:
    return build()


async def test_one_picture_takes_one_pass_and_names_its_stages(house: House) -> None:
    watch = Stopwatch()
    answer, result = await house.scheduler.submit(encode(make_picture(64, 48)), keep, watch=watch, timeout_s=10)
    assert (answer.place.width, answer.place.height, answer.place.resized_height) == (64, 48, 24)
    assert list(watch.timings_ms) == ["queue", "decode", "preprocess", "forward", "encode"]
    assert (result, house.passes) == ("miss", 1.0)
    assert house.count("unihead_ms_per_image_count", stage="queue", task="shared") == 1.0


async def test_as_many_passes_run_at_once_as_allowed(build: Callable[..., House]) -> None:
    house = build(workers=6)
    house.session.gate.clear()
    pending = [house.begin(body_of(seed)) for seed in range(20)]
    await until(lambda: house.admission.active == 6 and house.session.inside == 2)
    house.session.gate.set()
    await asyncio.gather(*pending)
    assert house.session.most_inside == 2


async def test_many_pictures_at_once_never_mix_their_answers(house: House) -> None:
    pictures = [encode(np.full((9 + i, 30, 3), (5 * i, 250 - 5 * i, 90), dtype=np.uint8)) for i in range(40)]
    answers = await asyncio.gather(*map(house.ask, pictures))
    for i, (answer, _) in enumerate(answers):
        assert answer.place.height == 9 + i
        alone, result = await house.ask(pictures[i], fresh=True)
        assert result == "bypass"
        np.testing.assert_array_equal(answer.prediction.class_probs, alone.prediction.class_probs)
    assert len({answer.prediction.class_probs.tobytes() for answer, _ in answers}) == 40


async def test_requests_about_one_picture_share_its_pass(house: House) -> None:
    house.session.gate.clear()
    first = house.begin(body_of(0))
    await until(lambda: house.session.inside == 1)
    others = [house.begin(body_of(0)) for _ in range(5)]
    await until(lambda: house.count("unihead_cache_requests_total", result="coalesced") == 5)
    house.session.gate.set()
    answers = await asyncio.gather(first, *others)
    assert [result for _, result in answers] == ["miss"] + ["coalesced"] * 5
    assert len({id(answer) for answer, _ in answers}) == 1
    assert house.passes == 1.0


async def test_later_requests_find_the_answer_in_the_cache(house: House) -> None:
    one, first = await house.ask(body_of(0))
    two, second = await house.ask(body_of(0))
    assert (first, second, house.passes) == ("miss", "hit", 1.0)
    assert one is two
    assert house.count("unihead_cache_bytes") > 0


async def test_a_hit_waits_behind_no_picture(house: House) -> None:
    await house.ask(body_of(0))
    house.session.gate.clear()
    pending = [house.begin(body_of(seed)) for seed in range(1, 9)]
    await until(lambda: house.admission.active == 2)
    _, result = await house.ask(body_of(0))
    assert result == "hit"
    house.session.gate.set()
    await asyncio.gather(*pending)


async def test_without_a_cache_only_what_is_under_way_is_shared(build: Callable[..., House]) -> None:
    house = build(cache_max_bytes=0)
    assert [(await house.ask(body_of(0)))[1] for _ in range(2)] == ["miss", "miss"]
    assert house.passes == 2.0
    assert house.count("unihead_cache_bytes") == 0


async def test_bypass_neither_takes_nor_leaves_a_pass(house: House) -> None:
    await house.ask(body_of(0), fresh=True)
    assert (await house.ask(body_of(0)))[1] == "miss"
    assert (await house.ask(body_of(0), fresh=True))[1] == "bypass"
    assert house.passes == 3.0


async def test_another_model_shares_nothing_with_the_one_before(house: House) -> None:
    house.session.gate.clear()
    old = house.begin(body_of(0))
    await until(lambda: house.session.inside == 1)
    house.scheduler.engine = Engine(FakeSession(), make_contract(version="new"), sha256="decaf")
    new, result = await house.ask(body_of(0))
    assert (new.contract.version, result) == ("new", "miss")
    house.session.gate.set()
    ended, _ = await old
    assert ended.contract.version == make_contract().version


async def test_a_cancelled_leader_does_not_fail_its_followers(house: House) -> None:
    house.session.gate.clear()
    leader = house.begin(body_of(0))
    await until(lambda: house.session.inside == 1)
    follower = house.begin(body_of(0))
    await until(lambda: house.count("unihead_cache_requests_total", result="coalesced") == 1)
    leader.cancel()
    house.session.gate.set()
    _, result = await follower
    assert (result, house.passes) == ("coalesced", 1.0)


async def test_a_queued_picture_goes_on_for_the_follower_when_its_leader_leaves(build: Callable[..., House]) -> None:
    house = build(workers=1)
    house.session.gate.clear()
    busy = house.begin(body_of(0))
    await until(lambda: house.session.inside == 1)
    leader, follower = house.begin(body_of(1)), house.begin(body_of(1))
    await until(lambda: house.admission.waiting == 1)
    leader.cancel()
    house.session.gate.set()
    assert (await follower)[1] == "coalesced"
    await busy


async def test_a_picture_that_nobody_waits_for_gives_its_place_back_and_costs_no_pass(
    build: Callable[..., House],
) -> None:
    house = build(workers=1)
    house.session.gate.clear()
    busy = house.begin(body_of(0))
    await until(lambda: house.session.inside == 1)
    gone = [house.begin(body_of(1)), house.begin(body_of(1)), house.begin(body_of(2))]
    await until(lambda: house.admission.waiting == 2)
    for task in gone:
        task.cancel()
    await until(lambda: house.admission.waiting == 0)
    house.session.gate.set()
    await busy
    assert (house.passes, house.count("unihead_dropped_images_total")) == (1.0, 2.0)
    assert (await house.ask(body_of(1)))[1] == "miss"  # a place of its own, not that of those who left


async def test_a_client_that_hangs_up_is_dropped(build: Callable[..., House]) -> None:
    house = build(workers=1)
    house.session.gate.clear()
    busy = house.begin(body_of(0))
    await until(lambda: house.session.inside == 1)
    hung_up = asyncio.Event()

    async def hang_up() -> None:
        await hung_up.wait()

    task = asyncio.create_task(
        house.scheduler.submit(body_of(1), keep, watch=Stopwatch(), timeout_s=10, hang_up=hang_up)
    )
    await until(lambda: house.admission.waiting == 1)
    hung_up.set()
    with pytest.raises(ClientGone):
        await task
    assert house.admission.waiting == 0
    house.session.gate.set()
    await busy
    assert house.passes == 1.0


async def test_what_is_late_is_told_at_its_deadline_and_dropped(build: Callable[..., House]) -> None:
    house = build(workers=1)
    house.session.gate.clear()
    busy = house.begin(body_of(0))
    await until(lambda: house.session.inside == 1)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="X-Request-Timeout-Ms"):
        await house.ask(body_of(1), timeout_s=0.05)
    assert 0.05 <= time.monotonic() - started < 5
    house.session.gate.set()
    await busy
    assert house.passes == 1.0


async def test_a_follower_keeps_its_own_deadline(house: House) -> None:
    house.session.gate.clear()
    patient = house.begin(body_of(0))
    await until(lambda: house.session.inside == 1)
    with pytest.raises(DeadlineExceeded):
        await house.ask(body_of(0), timeout_s=0.05)
    house.session.gate.set()
    assert (await patient)[1] == "miss"


async def test_a_full_queue_refuses_the_next_picture_but_no_follower(build: Callable[..., House]) -> None:
    house = build(workers=1, queue_limit=2)
    house.session.gate.clear()
    pending = [house.begin(body_of(0))]
    await until(lambda: house.session.inside == 1)
    pending += [house.begin(body_of(1)), house.begin(body_of(2))]
    await until(lambda: house.admission.waiting == 2)
    with pytest.raises(Overloaded) as refused:
        await house.ask(body_of(3))
    assert (refused.value.reason, refused.value.retry_after_s) == ("queue_full", 1)
    assert house.count("unihead_refused_requests_total", reason="queue_full") == 1.0
    pending.append(house.begin(body_of(2)))
    house.session.gate.set()
    assert [result for _, result in await asyncio.gather(*pending)] == ["miss", "miss", "miss", "coalesced"]


async def test_a_failed_pass_fails_all_who_share_it_and_nobody_later(house: House) -> None:
    damaged = body_of(0)[:50]
    results = await asyncio.gather(house.ask(damaged), house.ask(damaged), return_exceptions=True)
    assert [type(result) for result in results] == [DamagedImage, DamagedImage]
    with pytest.raises(DamagedImage):
        await house.ask(damaged)
    assert house.passes == 0
    assert (house.admission.waiting, house.admission.active) == (0, 0)


async def test_an_answer_that_cannot_be_finished_fails_its_own_request_only(house: House) -> None:
    def fail(*_: object) -> Answer:
        raise ZeroDivisionError

    async def ask_badly() -> None:
        await house.scheduler.submit(body_of(0), fail, watch=Stopwatch(), timeout_s=10)

    asked: list[Awaitable[object]] = [house.ask(body_of(0)), ask_badly(), house.ask(body_of(0))]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(result, ZeroDivisionError) for result in results] == [False, True, False]


async def test_a_large_body_is_hashed_off_the_loop_and_shared_all_the_same(house: House) -> None:
    large = body_of(0) + bytes(2**19)  # decoders ignore what follows the end
    assert [(await house.ask(large))[1] for _ in range(2)] == ["miss", "hit"]


async def test_nothing_is_taken_after_the_stop(house: House) -> None:
    await house.scheduler.stop()
    with pytest.raises(NotReady):
        await house.ask(body_of(0))


async def test_200_clients_get_the_answers_of_one(house: House) -> None:
    bodies = [body_of(seed) for seed in range(50)]
    alone = House()
    one_by_one = [(await alone.ask(body, fresh=True))[0] for body in bodies]
    await alone.scheduler.stop()
    order = np.random.default_rng(0).permuted(np.tile(np.arange(50), (200, 1)), axis=1)

    async def walk(client: int) -> None:
        for i in order[client].tolist():
            answer, _ = await house.ask(bodies[i])
            np.testing.assert_array_equal(answer.prediction.class_probs, one_by_one[i].prediction.class_probs)
            np.testing.assert_array_equal(answer.prediction.mask, one_by_one[i].prediction.mask)

    house.admission.limit = 200
    await asyncio.gather(*map(walk, range(200)))
    assert house.passes == 50.0
