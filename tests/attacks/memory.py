"""Small requests that cost much memory: pictures that unpack to it, and answers that are hardly read."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Mapping

from PIL import Image

from service.commands.spawn import Spawned
from tests.attacks import bombs
from tests.attacks.asking import Client, Ledger
from tests.attacks.goals import Figure, at_least, at_most, none_of
from tests.attacks.watching import look, reset_peak, scrape
from tests.service.fakes import encode

_AT_ONCE = 8
# What a request may be told while others have the memory.
_STATUSES = frozenset({200, 503})
_PATIENCE_MS = 60_000
_READ_BYTES, _READ_EVERY_S = 8192, 0.4
_SETTLE_S = 1.0


def make_costly_pictures(side: int) -> dict[str, bytes]:
    """Legal pictures of few bytes, square, `side` pixels wide, that take as much memory a pixel as there are ways."""
    clear, size = (120, 130, 140, 100), (side, side)
    return {
        "PNG with alpha, 16 bits": bombs.png(side, side, depth=16, colour=6),
        "PNG, grey with alpha, 16 bits": bombs.png(side, side, depth=16, colour=4),
        "PNG, grey, 16 bits": bombs.png(side, side, depth=16, colour=0),
        "PNG with alpha": encode(Image.new("RGBA", size, clear)),
        "PNG, interlaced": bombs.interlaced_png(side, side),
        "WebP": bombs.pixel_bomb_webp(side, side),
        "WebP with alpha": encode(Image.new("RGBA", size, clear), "WEBP", lossless=True, method=0),
        "WebP, lossy, with alpha": encode(Image.new("RGBA", size, clear), "WEBP", quality=1, method=0),
        "JPEG of four inks": encode(Image.new("CMYK", size, (10, 20, 30, 40)), "JPEG"),
        "progressive JPEG": encode(Image.new("RGB", size, clear[:3]), "JPEG", progressive=True, subsampling=0),
    }


async def send_costly_pictures(service: Spawned, pictures: Mapping[str, bytes], bar_mb: float) -> list[Figure]:
    """Send each picture eight times at once, each wanting a pass of its own; by turns drawn over and classified.

    Args:
        service: that is asked.
        pictures: by name.
        bar_mb: resident memory at most.
    """
    ledger, strange, answered = Ledger(), list[str](), 0
    reset_peak(service.pid)
    headers = {"Cache-Control": "no-cache", "X-Request-Timeout-Ms": str(_PATIENCE_MS)}

    async def send(path: str, picture: bytes) -> object:
        async with Client(service.host, service.port, ledger) as client:
            return (await client.ask(path, picture, headers, timeout_s=_PATIENCE_MS / 1000 + 5)).outcome

    for name, picture in pictures.items():
        paths = ("/classify", "/overlay?format=png")
        outcomes = await asyncio.gather(*(send(paths[i % 2], picture) for i in range(_AT_ONCE)))
        strange += [f"{name}: {outcome}" for outcome in outcomes if outcome not in _STATUSES]
        answered += 200 in outcomes
    what = f"{len(pictures)} costly pictures, {_AT_ONCE} of each at once"
    return [
        at_most(f"{what}: resident memory", look(service.pid).peak_mb, bar_mb, "MB"),
        at_least(f"{what}: kinds that were answered", answered, len(pictures), "", digits=0),
        none_of(f"{what}: statuses beside 200 and 503", strange, len(pictures) * _AT_ONCE),
        *await _settled(service, what),
    ]


async def _settled(service: Spawned, what: str) -> list[Figure]:
    """Whether the budget has been given back, once nobody asks."""
    await asyncio.sleep(_SETTLE_S)
    counters = await asyncio.to_thread(scrape, service)
    held = [
        f"{value:.0f} for {dict(labels)['use']}"
        for (name, labels), value in counters.items()
        if name == "unihead_memory_bytes" and value
    ]
    return [none_of(f"{what}: uses of memory that is not given back", held, 3)]


async def read_slowly(service: Spawned, *, readers: int, seconds: float, side: int, bar_mb: float) -> list[Figure]:
    """Let clients ask for raw masks of a large picture, and read a little now and then.

    Args:
        service: that is asked.
        readers: clients.
        seconds: how long they stay.
        side: of the picture, in pixels.
        bar_mb: resident memory at most.
    """
    picture = bombs.png(side, side, colour=0)
    reset_peak(service.pid)
    until, most = time.monotonic() + seconds, 0.0

    async def read() -> None:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _READ_BYTES)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        head = b"POST /segment?mask=raw HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(picture)
        with connection, contextlib.suppress(OSError, TimeoutError):
            await loop.sock_connect(connection, (service.host, service.port))
            await loop.sock_sendall(connection, head + picture)
            async with asyncio.timeout_at(loop.time() + until - time.monotonic()):
                while await loop.sock_recv(connection, _READ_BYTES):  # noqa: ASYNC110 - it is slow on purpose
                    await asyncio.sleep(_READ_EVERY_S)

    async def watch() -> None:
        nonlocal most
        while time.monotonic() < until:
            counters = await asyncio.to_thread(scrape, service)
            most = max(most, counters["unihead_memory_bytes", (("use", "answers"),)])
            await asyncio.sleep(_READ_EVERY_S)

    await asyncio.gather(watch(), *(read() for _ in range(readers)))
    what, limit = f"{readers} slow readers for {seconds:g} s", await asyncio.to_thread(scrape, service)
    return [
        at_most(f"{what}: resident memory", look(service.pid).peak_mb, bar_mb, "MB"),
        at_least(f"{what}: bytes of answers counted at once", most / 1e6, side * side / 1e6, "MB", digits=1),
        at_most(
            f"{what}: bytes of answers counted at once",
            most / 1e6,
            limit["unihead_memory_limit_bytes", ()] / 4e6 + readers * side * side / 1e9,
            "MB",
        ),
        *await _settled(service, what),
    ]
