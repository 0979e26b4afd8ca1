"""How a connection ends: with a lingering close, so that clients can read their last answer, in a bounded time."""

from __future__ import annotations

import asyncio
import fcntl
import math
import socket
import struct
import sys
import termios
from collections.abc import Callable
from typing import TYPE_CHECKING

from service.memory import FREE_ANSWER_BYTES, Hold

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

# A client that has its answer may go on sending for so long.
_LINGER_S = 5.0
# Who has used up all time still has this to read why.
_SHORT_LINGER_S = 0.5
# During a graceful shutdown, for a connection whose first request may be on its way.
SHUTDOWN_GRACE_S = 1.0
# What a client may go on sending once it has its answer: more than people send by mistake.
_LINGER_BYTES = 64 * 2**20
# Of an answer, within `write_timeout_s`; it keeps those away who read a byte now and then.
_PROGRESS_BYTES = 2**16
# So many times `write_timeout_s` may who has read faster rest: 2 MiB, the step in which a large window opens anew.
_MOST_CREDIT = 32
# <netinet/tcp.h>
_TCP_CLOSE = 7


class LingeringTransport:
    """What answers are written to; closing it sends the end of them, and goes on reading from the client.

    A socket that is closed before all has been read resets the connection, and a client that was still sending loses
    the answer that it had not looked at (RFC 9112, sec. 9.6).
    """

    def __init__(
        self, stream: asyncio.Transport, write_timeout_s: float, on_close: Callable[[], None], unsent: Hold
    ) -> None:
        """Wrap a connection's transport.

        Args:
            stream: the transport.
            write_timeout_s: how long it may stand still while something is unsent.
            on_close: called when the transport is closed this way.
            unsent: what its buffer holds of the budget of memory.
        """
        self._closed = False  # no answer follows
        self._held: list[bytes] = []
        self._stream = stream
        self._write_timeout_s = write_timeout_s
        self._on_close = on_close
        self._unsent = unsent
        self._left_bytes = _LINGER_BYTES
        self._may_be_untaken = False
        # Positions in all that is written to this connection: its end, what the client had taken at the last sweep, and
        # what it has to take before its time begins anew.
        self._written = self._taken = self._due = 0
        self._write_deadline = math.inf

    @property
    def is_untaken(self) -> bool:
        """Whether the client has not taken all that was written."""
        return self._count_untaken() > 0

    def _count_untaken(self) -> int:
        untaken = self._stream.get_write_buffer_size()
        if self._may_be_untaken:  # else there is no need to ask the system
            untaken += count_unacknowledged(self._stream)
        self._may_be_untaken = untaken > 0
        return untaken

    def is_closing(self) -> bool:
        """Whether there is nothing left to answer."""
        return self._closed or self._stream.is_closing()

    def write(self, data: bytes) -> None:
        """Send; head and body of an answer, which are written one after the other, are sent together.

        Each write on its own is a call of the system, a packet, and a client that wakes up.
        """
        self._held.append(data)
        if len(self._held) > 1:
            self.flush()
        else:  # a head, if it has no body, or one that is still to be made
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Send what has been written."""
        if self._held and not self._stream.is_closing():
            self._stream.writelines(self._held)
            self._written += sum(map(len, self._held))
            self._may_be_untaken = True
            self.count_unsent()
        self._held = []

    def count_unsent(self) -> None:
        """Hold as much memory as the buffer, but for what every connection may have in it."""
        size = self._stream.get_write_buffer_size()
        if size > FREE_ANSWER_BYTES:
            self._unsent.resize(size)
        elif self._unsent.number:
            self._unsent.resize(0)

    def close(self) -> None:
        """Send what has been written, then the end."""
        self.flush()
        if not self.is_closing():
            self._closed = True
            self._stream.write_eof()
            self._on_close()

    def close_at_once(self) -> None:
        """Send what has been written, and listen no longer."""
        self.flush()
        self._stream.close()

    def begin_discarding(self) -> None:
        """Start to count what `discard` throws away."""
        self._left_bytes = _LINGER_BYTES

    def discard(self, count: int) -> None:
        """Throw bytes away that came after the answer; when there are too many, close."""
        self._left_bytes -= count
        if self._left_bytes < 0:
            self._stream.abort()

    def sweep(self, now: float) -> None:
        """Close if the client takes less of what has been written than it must.

        What it has taken is what its system has acknowledged: of what waits in ours this one would only hear in steps
        of a megabyte. Whoever reads at the promised rate since the beginning is never late, however uneven the steps.
        """
        self.count_unsent()
        untaken = self._count_untaken()
        taken = self._written - untaken
        if taken >= self._due:  # what comes now is due anew; some of it may have been taken already
            self._taken, self._due, self._write_deadline = self._due, self._written, now + self._write_timeout_s
        earned_s = self._write_timeout_s * max(0, taken - self._taken) / _PROGRESS_BYTES
        self._write_deadline = min(self._write_deadline + earned_s, now + _MOST_CREDIT * self._write_timeout_s)
        self._taken = taken
        if untaken and now >= self._write_deadline:
            self._stream.abort()


def count_unacknowledged(stream: asyncio.Transport) -> int:
    """Bytes that this system holds for a client, the end of the answer counted as one; 0 where it does not tell."""
    if (raw := _find_socket(stream)) is None:
        return 0
    (count,) = struct.unpack("i", fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, bytes(4)))
    return int(count)


def is_reset(stream: asyncio.Transport) -> bool:
    """Whether the client has reset a connection that is no longer read, and so tells nobody."""
    raw = _find_socket(stream)
    return raw is not None and raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE


def _find_socket(stream: asyncio.Transport) -> socket.socket | None:
    """The open socket of a connection, on Linux, whose words these are."""
    raw: socket.socket | None = stream.get_extra_info("socket")
    return raw if sys.platform.startswith("linux") and raw is not None and raw.fileno() >= 0 else None


def compute_linger_deadline(now: float, body_deadline: float, *, is_shutting_down: bool) -> float:
    """Until when what a client still sends is thrown away: no longer than a body may take, but a moment in any case.

    Args:
        now: when it had taken the last byte of its answer; in seconds of the loop's clock.
        body_deadline: of its body, by the same clock.
        is_shutting_down: the server is.
    """
    until = min(now + _LINGER_S, max(body_deadline, now + _SHORT_LINGER_S))
    return min(until, now + SHUTDOWN_GRACE_S) if is_shutting_down else until


def close_unless_continued(cycle: RequestResponseCycle, app: ASGI3Application) -> ASGI3Application:
    """Close the connection of a request whose client waits for `100 Continue`, if it is answered without.

    Nobody could tell whether that client sends the body all the same, or its next request (RFC 9110, sec. 10.1.1).
    """

    async def answer(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def send_and_close(message: ASGISendEvent) -> None:
            if cycle.waiting_for_100_continue:
                cycle.keep_alive = False
            await send(message)

        await app(scope, receive, send_and_close)

    return answer
