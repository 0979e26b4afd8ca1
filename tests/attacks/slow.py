"""Goal 4: sockets that say nothing, a byte at a time, or read as slowly; an honest client hardly notices any of them.

Those that cost the service a place are closed, or make room for others; those that read at the promised rate are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import multiprocessing
import time
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from service.commands.spawn import Spawned
from tests.attacks.asking import Client, Ledger, percentile
from tests.attacks.goals import Figure, at_least, at_most, none_of
from tests.attacks.watching import look
from tests.service.fakes import encode, make_picture

_DRIP_S = 1.0
_HONEST_PAUSE_S = 0.02
_HEALTH_PAUSE_S = 0.02
# What a client must take within `write_timeout_s`, and what it reads at once.
_PROMISED_BYTES, _SIP_BYTES = 2**16, 2**13
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


@dataclass(slots=True)
class Health:
    """What /healthz and /metrics said to connections of their own.

    Attributes:
        ms: of each answer of /healthz.
        failed: how it failed, where it was not 200.
    """

    ms: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def ask_for_health(service: Spawned, seconds: float) -> Health:
    """Ask over a new connection each time, as a probe does; every tenth time for metrics."""
    found, until = Health(), time.monotonic() + seconds
    while time.monotonic() < until:
        started = time.perf_counter()
        path = "/metrics" if len(found.ms) % 10 == 9 else "/healthz"
        status = _ask(service, path)
        found.ms.append((time.perf_counter() - started) * 1000)
        if status != "200":
            found.failed.append(f"{path}: {status}")
        time.sleep(_HEALTH_PAUSE_S)
    return found


def _ask(service: Spawned, path: str, body: bytes | None = None) -> str:
    connection = http.client.HTTPConnection(service.host, service.port, timeout=5)
    with contextlib.closing(connection):
        try:
            connection.request("GET" if body is None else "POST", path, body)
            return str(connection.getresponse().status)
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__


@contextlib.asynccontextmanager
async def _hold(service: Spawned, kind: str, count: int) -> AsyncIterator[None]:
    """Keep sockets of a kind open, those that the service closes left out."""
    writers = []
    try:
        for _ in range(count):
            _, writer = await asyncio.open_connection(service.host, service.port)
            writer.write(KINDS[kind][0])
            writers.append(writer)
        yield
    finally:
        for writer in writers:
            writer.transport.abort()


async def _renew(service: Spawned, per_s: float, seconds: float) -> int:
    """Open sockets that begin a header at a rate, and keep them all; returns how many."""
    started, writers = time.monotonic(), list[asyncio.StreamWriter]()
    try:
        while (passed := time.monotonic() - started) < seconds:
            while len(writers) < per_s * passed:
                _, writer = await asyncio.open_connection(service.host, service.port)
                writer.write(b"GET")
                writers.append(writer)
            await asyncio.sleep(0.01)
        return len(writers)
    finally:
        for writer in writers:
            writer.transport.abort()


async def measure_at_limit(service: Spawned, *, limit: int, per_s: float, seconds: float) -> list[Figure]:
    """Take all connections that there may be, in three ways, and ask for health beside.

    Args:
        service: that is asked.
        limit: of its connections.
        per_s: new ones that are opened in a second.
        seconds: of each of the three.
    """
    figures, more = [], limit + 100
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as honest:
        loop = asyncio.get_running_loop()

        async def ask() -> Health:
            return await loop.run_in_executor(honest, ask_for_health, service, seconds)

        async with _hold(service, "head unfinished", more):
            found = {f"{more} half headers": await ask()}
        flooding = asyncio.ensure_future(_renew(service, per_s, 2 * seconds))
        await asyncio.sleep(seconds)
        found[f"{per_s:g} new connections a second that begin a header"] = await ask()
        await flooding
        async with _hold(service, "body missing", more):
            refused = await asyncio.to_thread(_ask, service, "/predict", b"x")
            found[f"{more} bodies that do not come"] = await ask()
    for what, health in found.items():
        figures.append(none_of(f"{what}: /healthz or /metrics not answered", health.failed, len(health.ms)))
        figures.append(at_most(f"{what}: /healthz, 99th percentile", percentile(health.ms, 0.99), 100, "ms"))
    others = [] if refused == "503" else [refused]
    return [*figures, none_of(f"{more} bodies that do not come: other answers to a picture than 503", others, 1)]


async def _sip(service: Spawned, picture: bytes, rate: float, seconds: float) -> str:
    """Read a large answer at a rate (bytes a second) for a while, then the rest; returns what went wrong, if it did."""
    reader, writer = await asyncio.open_connection(service.host, service.port, limit=_SIP_BYTES)
    head = f"POST /segment?mask=raw HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(picture)}\r\n\r\n"
    try:
        writer.write(head.encode() + picture)
        received = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in received.partition(b"\r\n")[0]:
            return received.partition(b"\r\n")[0].decode()
        wanted, body, started = int(received.lower().partition(b"content-length: ")[2].split()[0]), 0, time.monotonic()
        while body < wanted:
            passed = time.monotonic() - started
            if passed < seconds and body > rate * passed:
                await asyncio.sleep(0.05)
                continue
            piece = await reader.read(_SIP_BYTES)
            if not piece:
                return f"{body} of {wanted} bytes"
            body += len(piece)
    except OSError as error:
        return type(error).__name__
    finally:
        writer.transport.abort()
    return ""


async def measure_readers(service: Spawned, *, readers: int, write_timeout_s: float, seconds: float) -> list[Figure]:
    """Let clients read answers of megabytes hardly faster than they must.

    Args:
        service: that is asked.
        readers: at once.
        write_timeout_s: the setting.
        seconds: for which each reads so slowly.
    """
    picture, rate = encode(make_picture(2000, 2000), "PNG"), 1.1 * _PROMISED_BYTES / write_timeout_s
    cut = await asyncio.gather(*(_sip(service, picture, rate, seconds) for _ in range(readers)))
    what = f"{readers} clients that read 5 MB at {rate / 1024:.1f} KiB/s for {seconds:g} s: answers cut"
    return [none_of(what, [one for one in cut if one], readers)]
