"""Goals of endurance: an hour of mixed traffic at a share of the capacity; nothing drifts, nothing is lost."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence

from service.commands.spawn import Spawned
from tests.attacks.asking import percentile
from tests.attacks.feeding import reconcile
from tests.attacks.goals import Figure, at_least, at_most, none_of
from tests.attacks.traffic import Traffic, find_capacity, make_pictures
from tests.attacks.watching import Look, answered, scrape

# Drift is looked for between the first and the last of so many parts; memory after the first, in which caches fill.
_PARTS = 6


def slope_per_hour(points: Sequence[tuple[float, float]]) -> float:
    """Least-squares slope of (seconds, value); in units of the value per hour."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    squares = sum((x - mean_x) ** 2 for x, _ in points)
    return 3600 * sum((x - mean_x) * (y - mean_y) for x, y in points) / squares if squares else 0.0


async def measure(service: Spawned, *, seconds: float, load: float = 0.7, warm_s: float = 10) -> list[Figure]:
    """Soak a service at a share of its capacity, and judge.

    Args:
        service: that is asked; its cache may be on, good pictures ask for a pass of their own.
        seconds: how long.
        load: share of the capacity found just before.
        warm_s: seconds that the capacity is looked for.
    """
    pictures = make_pictures()
    capacity = await find_capacity(service, pictures, warm_s)
    before = answered(scrape(service))
    traffic = Traffic(service, pictures)
    await traffic.run(seconds=seconds, rate=load * capacity)
    await asyncio.sleep(1)
    seen, part_s = traffic.seen, seconds / _PARTS
    share = sum(answer.outcome == 200 for _, answer in seen.valid) / len(seen.valid)

    def p99(begin: float, end: float) -> float:
        return percentile([answer.ms for moment, answer in seen.valid if begin <= moment < end], 0.99)

    by_part = [p99(part * part_s, (part + 1) * part_s) for part in range(_PARTS)]
    settled = [(moment, one) for moment, one in seen.looks if moment >= part_s]
    slope = slope_per_hour([(moment, one.memory_mb) for moment, one in settled])
    looks = [one for _, one in settled]
    what = f"{seconds / 60:.0f} min at {load:.0%} of {capacity:.0f} a second"
    drift = f"{what}: p99 of the last sixth beside the first ({', '.join(f'{ms:.0f}' for ms in by_part)} ms)"
    memory = f"{what}: memory after the first sixth (at the end {looks[-1].memory_mb:.0f} MB)"
    return [
        at_least(f"{what}: share of {len(seen.valid)} valid requests answered", share, 0.9999, "", digits=6),
        at_most(drift, by_part[-1] / by_part[0], 1.1, "times", digits=2),
        at_most(memory, slope, 5, "MB/h"),
        at_most(f"{what}: file descriptors, later beside earlier", _growth(looks, lambda one: one.files), 5, "more"),
        at_most(f"{what}: threads, later beside earlier", _growth(looks, lambda one: one.threads), 0, "more"),
        none_of(f"{what}: hostile pictures with an outcome that no file may have", seen.strange, seen.ledger.sent),
        *reconcile(service, seen.ledger, before),
    ]


async def compare(
    aged: Spawned, fresh: Spawned, *, rounds: int = 7, seconds: float = 15, load: float = 0.7, warm_s: float = 10
) -> list[Figure]:
    """Ask a service that has been soaked and a new one in turns: a machine that has become slower slows both.

    Args:
        aged: that has been soaked.
        fresh: that has just been started, with the same settings.
        rounds: how often each is asked, now the one first and now the other.
        seconds: of each turn.
        load: share of the new one's capacity.
        warm_s: seconds that the capacity is looked for, and in which the new one warms up.
    """
    pictures = make_pictures()
    rate = load * await find_capacity(fresh, pictures, warm_s)
    ratios = []
    for number in range(rounds):
        p99 = {}
        for service in (aged, fresh) if number % 2 else (fresh, aged):
            traffic = Traffic(service, pictures, seed=number)
            await traffic.run(seconds=seconds, rate=rate)
            p99[service] = percentile([answer.ms for _, answer in traffic.seen.valid], 0.99)
        ratios.append(p99[aged] / p99[fresh])
    what = f"p99 of the soaked service beside a new one's, median of {rounds} turns of {seconds:g} s each"
    return [
        at_most(f"{what} ({min(ratios):.2f} to {max(ratios):.2f})", statistics.median(ratios), 1.1, "times", digits=2)
    ]


def _growth(looks: Sequence[Look], pick: Callable[[Look], int]) -> int:
    """How much the most of the second half is above the most of the first."""
    values = [pick(one) for one in looks]
    half = len(values) // 2
    return max(values[half:]) - max(values[:half] or values)
