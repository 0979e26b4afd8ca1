from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from service.engine.engine import Engine
from service.engine.postprocess import Answer
from service.errors import (
    DamagedImage,
    EmptyBody,
    NotReady,
    Overloaded,
    PictureTooCostly,
    RequestError,
    TooManyPixels,
    UnsupportedImage,
)
from service.scheduling.job import Job
from service.telemetry.timing import Stopwatch
from tests.attacks import bombs
from tests.service.fakes import FakeSession, encode, make_contract, make_picture
from tests.service.harness import LIMITS, Harness, body_of, keep, until

pytestmark = pytest.mark.anyio


async def test_one_picture_takes_one_pass_and_names_its_stages(harness: Harness) -> None:
    watch = Stopwatch()
    answer, result = await harness.scheduler.submit(Job(encode(make_picture(64, 48)), keep, watch, timeout_s=10))
    assert (answer.place.width, answer.place.height, answer.place.resized_height) == (64, 48, 24)
    assert list(watch.timings_ms) == ["queue", "decode", "preprocess", "forward", "encode"]
    assert (result, harness.passes) == ("miss", 1.0)
    assert harness.count("unihead_ms_per_image_count", stage="queue", task="shared") == 1.0


async def test_as_many_passes_run_at_once_as_allowed(build: Callable[..., Harness]) -> None:
    harness = build(workers=6)
    harness.session.gate.clear()
    pending = [harness.begin(body_of(seed)) for seed in range(20)]
    await until(lambda: harness.admission.active == 6 and harness.session.inside == 2)
    harness.session.gate.set()
    await asyncio.gather(*pending)
    assert harness.session.most_inside == 2


async def test_many_pictures_at_once_never_mix_their_answers(harness: Harness) -> None:
    pictures = [encode(np.full((9 + i, 30, 3), (5 * i, 250 - 5 * i, 90), dtype=np.uint8)) for i in range(40)]
    answers = await asyncio.gather(*map(harness.ask, pictures))
    for i, (answer, _) in enumerate(answers):
        assert answer.place.height == 9 + i
        alone, result = await harness.ask(pictures[i], fresh=True)
        assert result == "bypass"
        np.testing.assert_array_equal(answer.prediction.class_probs, alone.prediction.class_probs)
    assert len({answer.prediction.class_probs.tobytes() for answer, _ in answers}) == 40


async def test_requests_about_one_picture_share_its_pass(harness: Harness) -> None:
    harness.session.gate.clear()
    first = harness.begin(body_of(0))
    await until(lambda: harness.session.inside == 1)
    others = [harness.begin(body_of(0)) for _ in range(5)]
    await until(lambda: harness.count("unihead_cache_requests_total", result="coalesced") == 5)
    harness.session.gate.set()
    answers = await asyncio.gather(first, *others)
    assert [result for _, result in answers] == ["miss"] + ["coalesced"] * 5
    assert len({id(answer) for answer, _ in answers}) == 1
    assert harness.passes == 1.0


async def test_owners_share_neither_what_is_under_way_nor_what_is_kept(harness: Harness) -> None:
    harness.session.gate.clear()
    first = harness.begin(body_of(0), owner="a")
    await until(lambda: harness.session.inside == 1)
    other = harness.begin(body_of(0), owner="b")
    await until(lambda: harness.session.inside == 2)
    harness.session.gate.set()
    assert [result for _, result in await asyncio.gather(first, other)] == ["miss", "miss"]
    assert [(await harness.ask(body_of(0), owner=owner))[1] for owner in ("a", "b", "c", "")] == [
        *("hit", "hit", "miss", "miss")
    ]
    assert harness.passes == 4.0


async def test_later_requests_find_the_answer_in_the_cache(harness: Harness) -> None:
    one, first = await harness.ask(body_of(0))
    two, second = await harness.ask(body_of(0))
    assert (first, second, harness.passes) == ("miss", "hit", 1.0)
    assert one is two
    assert harness.count("unihead_cache_bytes") > 0


async def test_a_hit_waits_behind_no_picture(harness: Harness) -> None:
    await harness.ask(body_of(0))
    harness.session.gate.clear()
    pending = [harness.begin(body_of(seed)) for seed in range(1, 9)]
    await until(lambda: harness.admission.active == 2)
    _, result = await harness.ask(body_of(0))
    assert result == "hit"
    harness.session.gate.set()
    await asyncio.gather(*pending)


async def test_without_a_cache_only_what_is_under_way_is_shared(build: Callable[..., Harness]) -> None:
    harness = build(cache_max_bytes=0)
    assert [(await harness.ask(body_of(0)))[1] for _ in range(2)] == ["miss", "miss"]
    assert harness.passes == 2.0
    assert harness.count("unihead_cache_bytes") == 0


async def test_bypass_neither_takes_nor_leaves_a_pass(harness: Harness) -> None:
    await harness.ask(body_of(0), fresh=True)
    assert (await harness.ask(body_of(0)))[1] == "miss"
    assert (await harness.ask(body_of(0), fresh=True))[1] == "bypass"
    assert harness.passes == 3.0


async def test_another_model_shares_nothing_with_the_one_before(harness: Harness) -> None:
    harness.session.gate.clear()
    old = harness.begin(body_of(0))
    await until(lambda: harness.session.inside == 1)
    harness.scheduler.engine = Engine(FakeSession(), make_contract(version="new"), sha256="decaf")
    new, result = await harness.ask(body_of(0))
    assert (new.contract.version, result) == ("new", "miss")
    harness.session.gate.set()
    ended, _ = await old
    assert ended.contract.version == make_contract().version


async def test_a_failed_pass_fails_all_who_share_it_and_nobody_later(harness: Harness) -> None:
    damaged = body_of(0)[:50]
    results = await asyncio.gather(harness.ask(damaged), harness.ask(damaged), return_exceptions=True)
    assert [type(result) for result in results] == [DamagedImage, DamagedImage]
    with pytest.raises(DamagedImage):
        await harness.ask(damaged)
    assert harness.passes == 0
    await until(lambda: (harness.admission.waiting, harness.admission.active) == (0, 0))  # a moment after the answers


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("padding", [0, 2**19])
@pytest.mark.parametrize(
    ("body", "error"),
    [
        (bombs.pixel_bomb_webp(101, 100), TooManyPixels),
        (bombs.scan_bomb(40, 30, 200), PictureTooCostly),
        (bombs.apng(2), PictureTooCostly),
        (bombs.png(4, 4, pixels=b""), DamagedImage),
        (b"GIF89a" + bytes(40), UnsupportedImage),
        (b"", EmptyBody),
    ],
)
async def test_a_picture_is_refused_by_its_header_before_it_takes_a_place(
    build: Callable[..., Harness], body: bytes, error: type[RequestError], padding: int, fresh: bool
) -> None:
    harness = build(queue_limit=1, workers=1)
    harness.session.gate.clear()
    pending = [harness.begin(body_of(0))]
    await until(lambda: harness.session.inside == 1)
    pending.append(harness.begin(body_of(1)))
    await until(lambda: harness.admission.waiting == 1)
    with pytest.raises(Overloaded):
        await harness.ask(body_of(2))
    with pytest.raises(error):
        await harness.ask(body + bytes(padding if body else 0), fresh=fresh)
    assert (harness.admission.waiting, harness.admission.active) == (1, 1)
    assert sum(harness.count("unihead_cache_requests_total", result=result) for result in ("miss", "bypass")) == 2
    harness.session.gate.set()
    await asyncio.gather(*pending)


async def test_a_picture_within_other_limits_is_taken(build: Callable[..., Harness]) -> None:
    harness = build(limits=dataclasses.replace(LIMITS, max_frames=2))
    answer, _ = await harness.ask(bombs.animated_webp(2, 20, 10))
    assert (answer.place.width, answer.place.height) == (20, 10)


async def test_workers_that_are_stuck_are_counted_and_replaced_once(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(harness.scheduler._workers, "patience_s", 0.01)
    harness.session.gate.clear()
    pending = harness.begin(body_of(0))
    await until(lambda: harness.count("unihead_stuck_workers") == 1)
    harness.scheduler.relieve_workers()
    harness.scheduler.relieve_workers()
    assert harness.count("unihead_stuck_images_total") == 1
    assert caplog.messages == ["1 pictures hold a worker for more than 0.01 s; spare ones take over"]
    harness.session.gate.set()
    await pending
    await until(lambda: harness.count("unihead_stuck_workers") == 0)


async def test_an_answer_that_cannot_be_finished_fails_its_own_request_only(harness: Harness) -> None:
    def fail(*_: object) -> Answer:
        raise ZeroDivisionError

    async def ask_badly() -> None:
        await harness.scheduler.submit(Job(body_of(0), fail, Stopwatch(), timeout_s=10))

    asked: list[Awaitable[object]] = [harness.ask(body_of(0)), ask_badly(), harness.ask(body_of(0))]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(result, ZeroDivisionError) for result in results] == [False, True, False]


async def test_a_large_body_is_hashed_off_the_loop_and_shared_all_the_same(harness: Harness) -> None:
    large = body_of(0) + bytes(2**19)  # decoders ignore what follows the end
    assert [(await harness.ask(large))[1] for _ in range(2)] == ["miss", "hit"]


async def test_nothing_is_taken_after_the_stop(harness: Harness) -> None:
    await harness.scheduler.stop()
    with pytest.raises(NotReady):
        await harness.ask(body_of(0))


async def test_200_clients_get_the_answers_of_one(harness: Harness) -> None:
    bodies = [body_of(seed) for seed in range(50)]
    alone = Harness()
    one_by_one = [(await alone.ask(body, fresh=True))[0] for body in bodies]
    await alone.scheduler.stop()
    order = np.random.default_rng(0).permuted(np.tile(np.arange(50), (200, 1)), axis=1)

    async def walk(client: int) -> None:
        for i in order[client].tolist():
            answer, _ = await harness.ask(bodies[i])
            np.testing.assert_array_equal(answer.prediction.class_probs, one_by_one[i].prediction.class_probs)
            np.testing.assert_array_equal(answer.prediction.mask, one_by_one[i].prediction.mask)

    harness.admission.limit = 200
    await asyncio.gather(*map(walk, range(200)))
    assert harness.passes == 50.0
