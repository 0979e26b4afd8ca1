"""One connection: how long it may take, how much it may say, and refusals that reach a client which is still sending.

uvicorn has one timeout, for connections that idle between requests, and its parser takes headers of any size. Here a
connection carries a deadline, which one task looks at for all of them: no request costs a timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import resource
from collections.abc import AsyncIterator, Mapping
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.logs import log_request
from service.metrics import Metrics
from service.middleware import choose_id
from service.problems import make_problem
from service.security_headers import find_security_headers
from service.settings import Settings
from service.state import ServiceState

_SWEEP_S = 0.25
_MAX_HEADERS = 100
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
# A client that is refused while it sends is listened to for so long: who closes at once takes the answer back (RST).
_LINGER_S = 5.0
_SHORT_LINGER_S = 0.5
# At the end of the service, for a connection whose first request may be on its way.
_LAST_CHANCE_S = 1.0
# Connections beyond the limit that are told so; the next ones are closed without a word.
_REFUSED_AT_ONCE = 64
# Files and sockets that are no connections of clients.
_OTHER_FILES = 64


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, within limits."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Take what uvicorn hands to every connection; limits and metrics are those of the app."""
        super().__init__(config, server_state, app_state, _loop)
        house: ServiceState = config.app.state.service  # type: ignore[union-attr]  # always our app
        self._settings: Settings = house.settings
        self._metrics: Metrics = house.metrics
        self._deadline = math.inf
        self._began = 0.0
        self._in_head = True
        self._head_bytes = 0
        self._idle = False
        self._closing = False
        self._lingering = False
        self._discarded_bytes = 0
        self._refusal: tuple[int, str, str] | None = None
        self._unsent_bytes, self._unsent_since = 0, math.inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own
        """Begin to wait for a request, or refuse where there are connections enough."""
        super().connection_made(transport)
        self._began = self.loop.time()
        self._deadline = self._began + self._settings.header_timeout_s
        limit = max_connections(self._settings)
        if len(self.connections) > limit + _REFUSED_AT_ONCE:
            transport.abort()
        elif len(self.connections) > limit:
            detail = f"{limit} connections are open, which is the limit"
            self._refuse(503, "overloaded", detail, {"Retry-After": "1"})
            self._deadline = self._began + _SHORT_LINGER_S

    def data_received(self, data: bytes) -> None:
        """Count what comes, and hand it to the parser."""
        if self._lingering:
            self._discard(len(data))
            return
        if self._idle:
            self._idle, self._head_bytes = False, 0
            self._began = self.loop.time()
            self._deadline = self._began + self._settings.header_timeout_s
        if self._in_head:
            self._head_bytes += len(data)
            if b"pgrade:" in data:
                data = _ignore_upgrade(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self._settings.max_header_bytes and not self._lingering:
            self._refuse(*self._too_long())

    def on_message_begin(self) -> None:
        """Begin a request; its body's deadline counts from here."""
        super().on_message_begin()
        self.scope["state"]["body_deadline"] = self._began + self._settings.body_timeout_s

    def on_headers_complete(self) -> None:
        """Check what the parser does not, then begin the request."""
        length = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if length > self._settings.max_header_bytes or len(self.headers) > _MAX_HEADERS:
            self._refusal = self._too_long()
        elif (version := self.parser.get_http_version()) not in {"1.0", "1.1"}:
            self._refusal = (400, "malformed_request", "the request is neither HTTP/1.1 nor HTTP/1.0")
        elif version == "1.1" and [name for name, _ in self.headers].count(b"host") != 1:
            self._refusal = (400, "malformed_request", "HTTP/1.1 wants exactly one Host header")
        else:
            self._in_head, self._deadline = False, math.inf
            super().on_headers_complete()
            return
        raise ValueError(self._refusal[2])

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body; where the answer is out already, only so much of it."""
        if self.cycle.response_complete:
            self._discard(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request; what follows is another."""
        super().on_message_complete()
        self._in_head, self._head_bytes, self._discarded_bytes = True, 0, 0
        if self.cycle.response_complete:
            self._rest()

    def on_response_complete(self) -> None:
        """Go on after an answer; a body that is still coming is drained for a while."""
        super().on_response_complete()
        if self.transport.is_closing() or self._lingering:
            return
        # Where the next request has come already, its cycle is the one that is looked at here.
        if self.cycle.response_complete and self._in_head:
            self._rest()
        elif self.cycle.response_complete:
            self._deadline = self._linger_until()

    def _rest(self) -> None:
        """Wait for the next request; uvicorn's timer ends that too, unless a body was drained meanwhile."""
        self._idle, self._began = True, self.loop.time()
        self._deadline = self._began + self.timeout_keep_alive

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override]  # uvicorn's own
        """Begin to answer; closing afterwards waits for the client's last bytes."""
        # A refused client may leave the body out that it has announced, and its next request would be taken for that.
        if self._closing or cycle.waiting_for_100_continue:
            cycle.keep_alive = False
        cycle.transport = _GentleTransport(self)  # type: ignore[assignment]  # the three methods that a cycle calls
        super()._start_asgi_task(cycle, app)  # type: ignore[arg-type]  # starlette's and uvicorn's names of one type

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: the request is answered as if no upgrade had been proposed."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words
        """Refuse what the parser, or `on_headers_complete`, did not like."""
        self._refuse(*(self._refusal or (400, "malformed_request", "the request is no well-formed HTTP/1.1")))

    def _too_long(self) -> tuple[int, str, str]:
        limit = self._settings.max_header_bytes
        return 431, "header_too_large", f"the header has more than {limit} bytes or {_MAX_HEADERS} fields, the limits"

    def _refuse(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        """Answer without the app, and close; where the app is at work on this connection, let it finish first."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        counted = False
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or not cycle.more_body:
                cycle.keep_alive, self._lingering = False, True  # what came behind the request is not listened to
                return
            # The app waits for a body that will not come: it hears that its client has gone, and counts it.
            cycle.disconnected = counted = True
            cycle.message_event.set()
        request_id = choose_id("")
        began: Mapping[str, Any] | None = self.scope  # None before the first request
        path: str = began.get("path", "") if began else ""
        scope = {"path": path, "state": {"request_id": request_id}}
        answer = make_problem(scope, status, code, detail, {**(headers or {}), "X-Request-ID": request_id})
        added = (*find_security_headers(path), (b"connection", b"close"))
        fields = b"".join(b"%s: %s\r\n" % pair for pair in (*answer.raw_headers, *added))
        self.transport.write(b"".join([STATUS_LINE[status], fields, b"\r\n", bytes(answer.body)]))
        if not counted:
            self._metrics.count_request(route="unmatched", method="other", status=status)
            log_request({"request_id": request_id, "route": "unmatched", "status": status, "code": code})
        self._linger()

    def close_gently(self) -> None:
        """Close after an answer; where the client has not said all, only when it has, or after a while."""
        if self.cycle.more_body:
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Say that no more will come, and listen a while: what is not read takes the answer back."""
        if self.transport.is_closing():
            return
        self._lingering, self._deadline = True, self._linger_until()
        self.flow.resume_reading()
        with contextlib.suppress(OSError, RuntimeError):  # it has gone already
            self.transport.write_eof()

    def _linger_until(self) -> float:
        """No longer than a body may take, but a moment in any case."""
        now = self.loop.time()
        longest = min(now + _LINGER_S, self._began + self._settings.body_timeout_s)
        return max(longest, now + _SHORT_LINGER_S)

    def _discard(self, number: int) -> None:
        self._discarded_bytes += number
        if self._discarded_bytes > self._settings.max_body_bytes:
            self.transport.close()

    def shutdown(self) -> None:
        """Close at the end of the service; who is being answered, or may just have begun to ask, is answered."""
        self._closing = True
        if self._lingering:
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False
        elif self._idle:
            self.transport.close()
        else:
            self._deadline = min(self._deadline, self.loop.time() + _LAST_CHANCE_S)

    def sweep(self, now: float) -> None:
        """Look whether this connection's time is over; `now` in seconds of the loop's clock."""
        if now >= self._deadline:
            self._deadline = math.inf
            if self._in_head and self._head_bytes and not (self._idle or self._lingering):
                timeout_s = self._settings.header_timeout_s
                self._refuse(408, "request_timeout", f"the header did not come within {timeout_s:g} s")
            else:
                self.transport.close()
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent_bytes or self._unsent_since == math.inf:
            self._unsent_since = now if unsent else math.inf
        elif now - self._unsent_since > self._settings.write_timeout_s:
            self.transport.abort()
        self._unsent_bytes = unsent


def _ignore_upgrade(data: bytes) -> bytes:
    """Rename the header that proposes another protocol: the parser leaves the body out where it sees one.

    Java's own client proposes HTTP/2 with its first request, body and all; a server may ignore that (RFC 9110, 7.8).
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nignored:", head) + end + rest


class _GentleTransport:
    """What a request's cycle sees of its connection: closing it is left to the protocol."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, protocol: Protocol) -> None:
        self.write, self.is_closing = protocol.transport.write, protocol.transport.is_closing
        self.close = protocol.close_gently


def max_connections(settings: Settings) -> int:
    """As many connections as are set, and as this process may open."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(settings.max_connections, allowed - _OTHER_FILES - _REFUSED_AT_ONCE))


@contextlib.asynccontextmanager
async def sweep_connections(server: uvicorn.Server) -> AsyncIterator[None]:
    """Look after all connections of a server while the block runs."""
    task = asyncio.ensure_future(_sweep(server.server_state))
    try:
        yield
    finally:
        task.cancel()


async def _sweep(state: ServerState) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_SWEEP_S)
        for connection in list(state.connections):
            if isinstance(connection, Protocol):
                connection.sweep(loop.time())
