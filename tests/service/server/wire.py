"""One connection without a socket and without waiting: bytes are handed to the protocol, and so is the time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from service.api.state import ServiceState
from service.server.places import Places
from service.server.protocol import Protocol

# Of the sweep that closes what is too slow; no test depends on how often it comes.
_SWEEP_S = 0.25
# Steps of the event loop in which an app answers what takes no thread.
_STEPS = 50


class Clock:
    """An event loop whose time stands still until a test moves it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the loop has
        return getattr(self._loop, name)


class Stream(asyncio.Transport):
    """Keeps what is written; `ended` where the client can read no more of it."""

    def __init__(self) -> None:
        super().__init__()
        self.received = b""
        self.ended = False
        self.unsent = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.received += data

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.write(data)

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.ended

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        """Nothing comes but what a test sends."""

    def resume_reading(self) -> None:
        """Nothing comes but what a test sends."""


class Wire:
    """A client's end of one connection."""

    def __init__(self, app: FastAPI, places: Places | None = None) -> None:
        self.clock = Clock(asyncio.get_running_loop())
        self._began = self.clock.now
        self._stream = Stream()
        config = uvicorn.Config(app, http=Protocol, lifespan="off", ws="none", log_config=None, timeout_keep_alive=75)
        state: ServiceState = app.state.service
        self.protocol = Protocol(
            config,
            ServerState(),
            {},
            cast("asyncio.AbstractEventLoop", self.clock),
            settings=state.settings,
            places=places or Places(state.settings.max_connections),
            memory=state.memory,
        )
        self.protocol.connection_made(self._stream)

    @property
    def received(self) -> bytes:
        return self._stream.received

    @property
    def ended(self) -> bool:
        return self._stream.ended

    @property
    def unsent(self) -> int:
        """Bytes of answers that the client has not taken."""
        return self._stream.unsent

    @unsent.setter
    def unsent(self, count: int) -> None:
        self._stream.unsent = count

    @property
    def lasted_s(self) -> float:
        """Seconds by the handed clock since the connection was opened."""
        return self.clock.now - self._began

    async def send(self, data: bytes) -> None:
        self.protocol.data_received(data)
        await self._settle()

    async def wait(self, seconds: float) -> None:
        """Let time pass until the connection ends, at most so long."""
        until = self.clock.now + seconds
        while not self.ended and self.clock.now < until:
            self.clock.now = min(until, self.clock.now + _SWEEP_S)
            self.protocol.sweep(self.clock.now)
            await self._settle()

    async def end(self) -> bool:
        """Send no more, as `shutdown(SHUT_WR)` and `close` do; returns whether the server goes on."""
        stays = self.protocol.eof_received()
        if not stays:  # then an event loop closes
            self._stream.close()
        await self._settle()
        return stays

    async def drip(self, pieces: bytes, every_s: float = 0.2) -> None:
        """Send a byte at a time until the connection ends."""
        for byte in pieces:
            if self.ended:
                return
            await self.send(bytes([byte]))
            await self.wait(every_s)

    async def _settle(self) -> None:
        for _ in range(_STEPS):
            await asyncio.sleep(0)
