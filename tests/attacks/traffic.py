"""Open-loop traffic: good pictures at a rate, with hostile ones and aborted requests among them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from service.commands.spawn import Spawned
from tests.attacks.asking import Answer, Client, Ledger
from tests.attacks.feeding import FILE_STATUSES
from tests.attacks.mutants import make_mutants
from tests.attacks.watching import Look, look
from tests.service.fakes import encode, make_picture

PATHS = ("/predict", "/detect", "/segment", "/classify")
_FRESH = {"Cache-Control": "no-cache"}
_VALID_PICTURES = 200
_HOSTILE_SHARE, _ABORTED_SHARE = 0.05, 0.01
_MUTANTS = 2000
_LONGEST_ABORT_S = 0.03
_LOOK_EVERY_S = 5.0
_CONNECTIONS = 64


@dataclass(slots=True)
class Seen:
    """What an open loop has seen.

    Attributes:
        ledger: of everything.
        valid: moment (seconds since the start) and answer of each request with a good picture that its client awaited.
        strange: outcomes of hostile pictures that no file may have.
        looks: moment and look at the process.
    """

    ledger: Ledger = field(default_factory=Ledger)
    valid: list[tuple[float, Answer]] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    looks: list[tuple[float, Look]] = field(default_factory=list)


@functools.cache
def make_pictures() -> tuple[bytes, ...]:
    """Good pictures of several kinds and sizes."""
    kinds = itertools.cycle([("JPEG", (640, 480)), ("JPEG", (1280, 960)), ("PNG", (320, 240)), ("WEBP", (640, 480))])
    sizes = itertools.islice(kinds, _VALID_PICTURES)
    return tuple(encode(make_picture(*size, seed=seed), kind) for seed, (kind, size) in enumerate(sizes))


async def find_capacity(service: Spawned, pictures: Sequence[bytes], seconds: float, connections: int = 8) -> float:
    """Pictures a second that a closed loop gets, each with a pass of its own."""
    ends = time.monotonic() + seconds
    numbers = itertools.count()

    async def work() -> int:
        done = 0
        async with Client(service.host, service.port) as client:
            while time.monotonic() < ends:
                number = next(numbers)
                answer = await client.ask(PATHS[number % len(PATHS)], pictures[number % len(pictures)], _FRESH)
                done += answer.outcome == 200
        return done

    return sum(await asyncio.gather(*(work() for _ in range(connections)))) / seconds


class Traffic:
    """Requests that come at a rate, whatever comes back (Poisson arrivals), over kept connections."""

    def __init__(self, service: Spawned, pictures: Sequence[bytes], *, seed: int = 0) -> None:
        """Send nothing yet.

        Args:
            service: that is asked.
            pictures: good ones; each request wants a pass of its own.
            seed: of arrivals and of hostile pictures.
        """
        self.seen = Seen()
        self._service = service
        self._pictures = pictures
        self._chance = random.Random(seed)
        self._mutants = itertools.cycle([body for _, body in make_mutants(_MUTANTS, seed)])
        self._free: asyncio.Queue[Client] = asyncio.Queue()
        self._started = 0.0

    async def run(self, *, seconds: float, rate: float) -> None:
        """Send requests, `rate` a second, and wait for the last of them."""
        for _ in range(_CONNECTIONS):
            self._free.put_nowait(Client(self._service.host, self._service.port, self.seen.ledger))
        running: set[asyncio.Task[None]] = set()
        self._started = due = time.monotonic()
        watching = asyncio.ensure_future(self._watch())
        for number in itertools.count():
            due += self._chance.expovariate(rate)
            if due - self._started > seconds:
                break
            await asyncio.sleep(max(0, due - time.monotonic()))
            running.add(task := asyncio.ensure_future(self._send(number)))
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        while not self._free.empty():
            self._free.get_nowait().drop()

    def _choose(self) -> Literal["valid", "hostile", "aborted"]:
        dice = self._chance.random()
        if dice < _HOSTILE_SHARE:
            return "hostile"
        return "aborted" if dice < _HOSTILE_SHARE + _ABORTED_SHARE else "valid"

    async def _send(self, number: int) -> None:
        kind, path = self._choose(), PATHS[number % len(PATHS)]
        body = next(self._mutants) if kind == "hostile" else self._pictures[number % len(self._pictures)]
        leave_after_s = self._chance.uniform(0, _LONGEST_ABORT_S) if kind == "aborted" else None
        arrived = time.monotonic()
        client = await self._free.get()
        # A request that found no free connection has waited since it arrived.
        waited_ms = (time.monotonic() - arrived) * 1000
        answer = await client.ask(path, body, _FRESH if kind == "valid" else None, leave_after_s=leave_after_s)
        self._free.put_nowait(client)
        if kind == "valid":
            self.seen.valid.append((arrived - self._started, Answer(answer.outcome, answer.ms + waited_ms)))
        elif kind == "hostile" and answer.outcome not in FILE_STATUSES:
            self.seen.strange.append(f"{path}: {answer.outcome}")

    async def _watch(self) -> None:
        while True:
            self.seen.looks.append((time.monotonic() - self._started, look(self._service.pid)))
            await asyncio.sleep(_LOOK_EVERY_S)
