"""How one connection comes to its end: in time, after its last answer, and without taking that from its client."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.api.scope import body_too_late
from service.errors import RequestError, RequestTimeout, Unavailable
from service.server.closing import SHUTDOWN_GRACE_S, LingeringTransport, compute_linger_deadline, is_reset
from service.server.message import IncomingMessage
from service.server.places import Places
from service.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

# So long a client that has ended its side is believed to wait for its answer; then it is asked.
_BELIEVED_S = 1.0


class EndingProtocol(HttpToolsProtocol):
    """What ends a connection: its deadlines, its client, a lack of places, and the shutdown of the server."""

    # From `Protocol`.
    _settings: Settings
    _places: Places
    _stream: asyncio.Transport
    _outgoing: LingeringTransport
    _message: IncomingMessage
    _reject: Callable[[RequestError | Unavailable], None]

    _deadline = math.inf  # of what the phase of the message, or the client after the last answer, may take
    _is_shutting_down = False
    _client_ended_at = math.inf  # when the client said that it sends no more
    _is_asked = False  # whether it is still there

    @property
    def _newest(self) -> RequestResponseCycle | None:
        """The newest request that was handed to the app, or waits for that; uvicorn has None before the first."""
        return self.cycle

    def _is_answering(self) -> bool:
        return (newest := self._newest) is not None and not newest.response_complete

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn leaves it to the event loop
        """Answer all that was asked, for who sends no more may still read; returns whether the connection stays open.

        A client that has left altogether looks the same, until it is sent something.
        """
        message = self._message
        if self._is_answering() and message.phase != "body":
            if message.phase == "head":  # which nobody will end
                message.phase, self._deadline = "stopped", math.inf
            self.cycle.keep_alive = False
        elif self._outgoing.is_untaken and not self._is_answering():
            self.transport.close()
        else:
            return False
        self._client_ended_at = self.loop.time()
        return True

    def _linger(self) -> None:
        """The last answer is on its way: throw away what comes until the client has closed, within bounds."""
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self._message.phase = "lingering"
        self._places.wait(self)
        self._deadline = self._compute_linger_deadline(self.loop.time())

    def _compute_linger_deadline(self, now: float) -> float:
        return compute_linger_deadline(now, self._message.body_deadline, is_shutting_down=self._is_shutting_down)

    def sweep(self, now: float) -> None:
        """Look whether this connection's time is over; `now` in seconds of the loop's clock."""
        phase, is_answering = self._message.phase, self._is_answering()
        self._outgoing.sweep(now)
        if not is_answering and phase in {"lingering", "body"} and self._outgoing.is_untaken:
            self._deadline = max(self._deadline, self._compute_linger_deadline(now))  # begins with the last byte
        elif phase == "lingering" and self._client_ended_at < math.inf:
            self._outgoing.close_at_once()
        elif now >= self._deadline:
            if phase == "lingering":
                self._stream.abort()
            elif phase == "head":
                self._reject(RequestTimeout(f"the header did not come within {self._settings.header_timeout_s:g} s"))
            elif phase == "body" and is_answering:
                self._reject(body_too_late(self._settings.body_timeout_s))
            else:
                self._outgoing.close_at_once()
        elif is_answering and now >= self._client_ended_at + _BELIEVED_S:
            self._ask_whether_client_is_there()

    def _ask_whether_client_is_there(self) -> None:
        """Send what clients of HTTP/1.1 read over (RFC 9110, sec. 15.2); one that has left makes its system reset."""
        cycle = self.cycle
        if is_reset(self._stream):
            self._stream.abort()
        elif not (self._is_asked or self.pipeline or cycle.response_started) and cycle.scope["http_version"] == "1.1":
            self._is_asked = True
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    @property
    def is_untaken(self) -> bool:
        """Whether the client still takes an answer."""
        return self._outgoing.is_untaken

    def close(self) -> None:
        """Close without an answer."""
        self._outgoing.close_at_once()

    def shutdown(self) -> None:
        """Begin the graceful shutdown; who is being answered, or may just have begun to ask, is answered."""
        if self._is_shutting_down:
            return
        self._is_shutting_down = True
        if self._is_answering():
            self.cycle.keep_alive = False
        elif self._newest is None or self._message.phase != "idle":
            self._deadline = min(self._deadline, self.loop.time() + SHUTDOWN_GRACE_S)
        elif self._outgoing.is_untaken:
            self.transport.close()
        else:
            self._outgoing.close_at_once()
