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
from service.telemetry.timing import Stopwatch
from tests.service.fakes import FakeSession, encode, make_contract, make_picture
from tests.service.hostile import bombs
from tests.service.house import LIMITS, House, body_of, keep, until

pytestmark = pytest.mark.anyio


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


async def test_a_failed_pass_fails_all_who_share_it_and_nobody_later(house: House) -> None:
    damaged = body_of(0)[:50]
    results = await asyncio.gather(house.ask(damaged), house.ask(damaged), return_exceptions=True)
    assert [type(result) for result in results] == [DamagedImage, DamagedImage]
    with pytest.raises(DamagedImage):
        await house.ask(damaged)
    assert house.passes == 0
    await until(lambda: (house.admission.waiting, house.admission.active) == (0, 0))  # a moment after the answers


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
    build: Callable[..., House], body: bytes, error: type[RequestError], padding: int, fresh: bool
) -> None:
    house = build(queue_limit=1, workers=1)
    house.session.gate.clear()
    pending = [house.begin(body_of(0))]
    await until(lambda: house.session.inside == 1)
    pending.append(house.begin(body_of(1)))
    await until(lambda: house.admission.waiting == 1)
    with pytest.raises(Overloaded):
        await house.ask(body_of(2))
    with pytest.raises(error):
        await house.ask(body + bytes(padding if body else 0), fresh=fresh)
    assert (house.admission.waiting, house.admission.active) == (1, 1)
    assert sum(house.count("unihead_cache_requests_total", result=result) for result in ("miss", "bypass")) == 2
    house.session.gate.set()
    await asyncio.gather(*pending)


async def test_a_picture_within_other_limits_is_taken(build: Callable[..., House]) -> None:
    house = build(limits=dataclasses.replace(LIMITS, max_frames=2))
    answer, _ = await house.ask(bombs.animated_webp(2, 20, 10))
    assert (answer.place.width, answer.place.height) == (20, 10)


async def test_workers_that_are_stuck_are_counted_and_replaced_once(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(house.scheduler._workers, "patience_s", 0.01)
    house.session.gate.clear()
    pending = house.begin(body_of(0))
    await until(lambda: house.count("unihead_stuck_workers") == 1)
    house.scheduler.relieve_workers()
    house.scheduler.relieve_workers()
    assert house.count("unihead_stuck_images_total") == 1
    assert caplog.messages == ["1 pictures hold a worker for more than 0.01 s; spare ones take over"]
    house.session.gate.set()
    await pending
    await until(lambda: house.count("unihead_stuck_workers") == 0)


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
