"""Goal 4: sockets that say nothing, or a byte at a time; they are closed, and an honest client hardly notices."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from service.commands.spawn import Spawned
from tests.attacks.asking import Client, Ledger, percentile
from tests.attacks.goals import Figure, at_least, at_most, none_of
from tests.attacks.watching import look
from tests.service.fakes import encode, make_picture

_DRIP_S = 1.0
_HONEST_PAUSE_S = 0.02
_HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 100000\r\n"
# What is sent at once, and what then comes a byte a second.
KINDS: dict[str, tuple[bytes, bytes]] = {
    "silent": (b"", b""),
    "head dripping": (b"POST /predict HTTP/1.1\r\n", b"X-Drip: " + b"a" * 1000),
    "head unfinished": (_HEAD, b""),
    "body missing": (_HEAD + b"\r\n", b""),
    "body dripping": (_HEAD + b"\r\n\xff\xd8\xff", b"\0" * 1000),
}


@dataclass(slots=True)
class Slow:
    """What became of slow sockets.

    Attributes:
        lived_s: how long each was open that the service closed.
        open_s: how long the oldest was open that it did not close.
        failed: those that could not connect.
    """

    lived_s: list[float] = field(default_factory=list)
    open_s: float = 0
    failed: int = 0


async def drip(service: Spawned, kind: str, slow: Slow, until: float) -> None:
    """Be one slow client: connect, send as its kind does until it is closed, and connect again, until a moment."""
    at_once, later = KINDS[kind]
    while (started := time.monotonic()) < until:
        try:
            reader, writer = await asyncio.open_connection(service.host, service.port)
        except OSError:
            slow.failed += 1
            await asyncio.sleep(_DRIP_S)
            continue
        try:
            writer.write(at_once)
            closed = asyncio.ensure_future(_read_to_end(reader))
            for byte in later or b"\0" * 1000:
                if closed.done() or time.monotonic() >= until:
                    break
                if later:
                    with contextlib.suppress(OSError):
                        writer.write(bytes([byte]))
                await asyncio.wait([closed], timeout=_DRIP_S)
            if closed.done():
                slow.lived_s.append(time.monotonic() - started)
            else:
                slow.open_s = max(slow.open_s, time.monotonic() - started)
                closed.cancel()
        finally:
            writer.transport.abort()


async def _read_to_end(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(65536):
            pass


async def ask_honestly(service: Spawned, seconds: float) -> list[float]:
    """Ask about pictures that have not been seen, one after another; milliseconds of each answer."""
    times, until, number = [], time.monotonic() + seconds, 0
    async with Client(service.host, service.port, Ledger()) as client:
        while time.monotonic() < until:
            answer = await client.ask("/predict", encode(make_picture(64, 48, seed=number), "PNG"))
            assert answer.outcome == 200, answer
            times.append(answer.ms)
            number += 1
            await asyncio.sleep(_HONEST_PAUSE_S)
    return times


def _ask_honestly(service: Spawned, seconds: float) -> list[float]:
    """In a process of its own: in this one it would wait for five hundred clients that are woken at once."""
    return asyncio.run(ask_honestly(service, seconds))


async def measure(service: Spawned, *, sockets: int, seconds: float, closed_within_s: float) -> list[Figure]:
    """Open slow sockets beside an honest client.

    Args:
        service: that is asked.
        sockets: slow ones, kept at that number.
        seconds: how long; the honest client is measured as long before.
        closed_within_s: the bar for each.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as honest:

        async def ask(for_s: float) -> list[float]:
            return await asyncio.get_running_loop().run_in_executor(honest, _ask_honestly, service, for_s)

        await ask(2)
        before = look(service.pid)
        alone = await ask(seconds)
        slow, until = Slow(), time.monotonic() + seconds
        kinds = list(KINDS)
        dripping = [asyncio.ensure_future(drip(service, kinds[i % len(kinds)], slow, until)) for i in range(sockets)]
        beside = await ask(seconds)
        during = look(service.pid)
        await asyncio.gather(*dripping)
        await asyncio.sleep(1)
        after = look(service.pid)
    ratio = percentile(beside, 0.99) / percentile(alone, 0.99)
    lived = max([*slow.lived_s, slow.open_s])
    what = f"{sockets} slow sockets for {seconds:g} s"
    return [
        at_most(f"{what}: each is closed ({len(slow.lived_s)} were)", lived, closed_within_s, "s"),
        at_least(f"{what}: sockets closed", len(slow.lived_s), sockets, "", digits=0),
        none_of(f"{what}: could not connect", ["connection refused"] * slow.failed, sockets),
        at_most(f"{what}: an honest client's p99 beside its p99 alone", ratio, 2, "times", digits=2),
        at_most(f"{what}: memory", during.memory_mb - before.memory_mb, 20, "MB"),
        at_most(f"{what}: file descriptors left open", after.files - before.files, 5, "", digits=0),
    ]
