from __future__ import annotations

import random
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.scheduling.cache import Cache


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_was_put_is_found_until_it_is_too_old(clock: Clock) -> None:
    cache: Cache[str] = Cache(max_bytes=100, max_age_s=60, clock=clock)
    cache.put(b"a", "answer", 10)
    clock.now = 59.9
    assert cache.get(b"a") == "answer"
    clock.now = 60.0  # looking at it has not made it younger
    assert cache.get(b"a") is None
    assert (len(cache), cache.bytes_held) == (0, 0)


def test_the_longest_unused_leaves_first(clock: Clock) -> None:
    cache: Cache[int] = Cache(max_bytes=30, max_age_s=60, clock=clock)
    for i, key in enumerate((b"a", b"b", b"c")):
        cache.put(key, i, 10)
    cache.get(b"a")
    cache.put(b"d", 3, 15)
    assert [cache.get(key) for key in (b"a", b"b", b"c", b"d")] == [0, None, None, 3]
    assert cache.bytes_held == 25


def test_a_second_value_replaces_the_first(clock: Clock) -> None:
    cache: Cache[int] = Cache(max_bytes=30, max_age_s=60, clock=clock)
    cache.put(b"a", 1, 20)
    cache.put(b"a", 2, 25)
    assert (cache.get(b"a"), len(cache), cache.bytes_held) == (2, 1, 25)


@pytest.mark.parametrize(("max_bytes", "max_age_s", "size"), [(0, 60, 1), (100, 0, 1), (100, 60, 101)])
def test_nothing_is_kept_where_it_has_no_room(clock: Clock, max_bytes: int, max_age_s: float, size: int) -> None:
    cache: Cache[int] = Cache(max_bytes=max_bytes, max_age_s=max_age_s, clock=clock)
    cache.put(b"a", 1, size)
    assert cache.get(b"a") is None
    assert len(cache) == 0


def test_a_value_too_large_pushes_nothing_out(clock: Clock) -> None:
    cache: Cache[int] = Cache(max_bytes=10, max_age_s=60, clock=clock)
    cache.put(b"a", 1, 10)
    cache.put(b"b", 2, 11)
    assert cache.get(b"a") == 1


def test_clear_forgets(clock: Clock) -> None:
    cache: Cache[int] = Cache(max_bytes=10, max_age_s=60, clock=clock)
    cache.put(b"a", 1, 10)
    cache.clear()
    assert (cache.get(b"a"), cache.bytes_held) == (None, 0)


def test_several_threads_may_use_it_at_once() -> None:
    cache: Cache[int] = Cache(max_bytes=50, max_age_s=60)

    def use(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(20_000):
            key = b"%d" % chance.randrange(20)
            if chance.random() < 0.5:
                cache.put(key, 1, 10)
            else:
                cache.get(key)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(use, range(4)))
    finally:
        sys.setswitchinterval(before)
    assert (len(cache), cache.bytes_held) == (5, 50)
