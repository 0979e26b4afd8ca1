"""One connection: how long it may take, how much it may say, and that its answers come in turn and arrive.

uvicorn has one timeout, for connections that idle between requests, and its parser takes headers of any size. Here a
connection carries a deadline, which one task looks at for all of them: no request costs a timer.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.api.scope import BODY_FAULT, DISCONNECT, Disconnect, body_too_late
from service.api.state import ServiceState
from service.errors import MalformedRequest, Overloaded, RequestError, RequestTimeout, Unavailable
from service.server.closing import LAST_CHANCE_S, EndingTransport, close_unless_continued, find_linger_end
from service.server.connections import REFUSED_AT_ONCE, Connection, close_most_idle
from service.server.head import MAX_HEADERS, check_head, count_head_bytes, refuse_size, write_without_upgrade
from service.server.refusals import explain_failure, make_refusal_cycle

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

# Requests that wait on one connection for those before them; who sends more has to send them again.
MAX_PIPELINED = 32
# Chunks of a body cost time however small they are: so many may be, and beyond it they have so many bytes on average.
_FREE_CHUNKS, _CHUNK_BYTES = 1024, 128
_IDLE, _HEAD, _BODY = range(3)


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, within limits.

    What is refused here is answered by the app like any other request, after those that came before it:
    `REQUEST_FAULT` in its scope's state says why. What is wrong with a body whose request is being answered is told by
    `BODY_FAULT`.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Take what uvicorn hands to every connection; the limits are those of the app."""
        super().__init__(config, server_state, app_state, _loop)
        house: ServiceState = config.app.state.service  # type: ignore[union-attr]  # always our app
        self._settings = house.settings
        self._max_connections = house.max_connections
        self._stream: asyncio.Transport
        self._ending: EndingTransport
        self._phase = _IDLE  # of the message that comes in
        self._has_scope = False  # `scope` is that message's
        self._has_asked = False  # `cycle` is there, that of the newest request
        self._began = 0.0  # when the message's first byte came
        self._deadline = math.inf
        self._loose_bytes = 0  # that came since the message began, or its head or a piece of its body was complete
        self._chunks = self._chunk_bytes = 0  # of its body
        self._upgrading = False  # its head asks for another protocol
        self._deaf = False  # what comes is thrown away
        self._leaving = False
        self._disconnect = Disconnect()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own
        """Begin to wait for a request, or refuse where there are connections enough and none of them idles."""
        super().connection_made(transport)
        self._stream = transport
        self._ending = EndingTransport(transport, self._settings.write_timeout_s, on_end=self._linger)
        self.transport = cast("asyncio.Transport", self._ending)
        self._began = self.loop.time()
        self._deadline = self._began + self._settings.header_timeout_s
        above = len(self.connections) - self._max_connections
        if above > 0 and not close_most_idle(cast("Iterable[Connection]", self.connections)):
            if above > REFUSED_AT_ONCE:
                transport.abort()
            else:
                sentence = f"{self._max_connections} connections are open, which is the limit"
                self._refuse(Overloaded(sentence, reason="connections", retry_after_s=1))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell those who work for a client that has gone."""
        super().connection_lost(exc)
        self._disconnect.tell()

    def data_received(self, data: bytes) -> None:
        """Count what comes, and hand it to the parser."""
        self._unset_keepalive_if_required()
        if self._ending.ended:
            self._ending.discard(len(data))
            return
        if self._deaf:
            self.flow.pause_reading()  # an answer is still to come
            return
        if self._phase == _IDLE:
            self._begin()
        self._loose_bytes += len(data)
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = self._drop_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                if not self._deaf:  # not refused, but not read
                    self._refuse(explain_failure(error))
                return
        if self._loose_bytes > self._settings.max_header_bytes:
            self._refuse(refuse_size(self._settings.max_header_bytes))

    def _begin(self) -> None:
        """Start a message's clock; while another one is answered it may take its time."""
        self._phase, self._loose_bytes, self._began = _HEAD, 0, self.loop.time()
        if self._has_asked and self.cycle.response_complete:
            self._deadline = self._began + self._settings.header_timeout_s

    def _is_answering(self) -> bool:
        return self._has_asked and not self.cycle.response_complete

    def on_message_begin(self) -> None:
        """Begin the next request."""
        super().on_message_begin()
        self._has_scope = True
        if self._phase == _IDLE:
            self._begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header.

        Raises:
            HeaderTooLarge: there are too many.
        """
        if self._phase != _HEAD:
            return  # a trailer, which must not pass for a header
        if len(self.headers) >= MAX_HEADERS:
            raise refuse_size(self._settings.max_header_bytes)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer.

        Raises:
            HeaderTooLarge: the head has too many bytes.
            MalformedRequest: the head may be understood in more than one way, or not at all.
        """
        limit = self._settings.max_header_bytes
        method, version = self.parser.get_method(), self.parser.get_http_version()
        self.scope["method"] = method.decode()
        if self._loose_bytes > limit < count_head_bytes(self.url, self.headers):
            raise refuse_size(limit)
        check_head(method, self.url, version, self.headers)
        self._upgrading = self.parser.should_upgrade()
        if self._upgrading:
            return
        if len(self.pipeline) >= MAX_PIPELINED:
            self.cycle.keep_alive = False
            self._deaf = True
            raise _PipelineFullError
        if version == "1.0":
            self.expect_100_continue = False
        self._phase, self._loose_bytes = _BODY, 0
        self._chunks = self._chunk_bytes = 0
        self._deadline = math.inf if self._is_answering() else self._began + self._settings.body_timeout_s
        self.scope["state"].update({BODY_FAULT: None, DISCONNECT: self._disconnect})
        super().on_headers_complete()
        self._has_asked = True
        if self._leaving:
            self.cycle.keep_alive = False

    def _drop_upgrade(self) -> bytes:
        """Return the head that has come, to be read again without its wish for another protocol."""
        self._upgrading = False
        return write_without_upgrade(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)

    def on_chunk_header(self) -> None:
        """Begin a chunk.

        Raises:
            MalformedRequest: there are too many for what is in them.
        """
        self._chunks += 1
        if self._chunks > _FREE_CHUNKS + self._chunk_bytes // _CHUNK_BYTES:
            raise MalformedRequest(f"the body comes in too many chunks; send {_CHUNK_BYTES} bytes and more in each")

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body; where the answer is out already, only so much of it."""
        self._loose_bytes = 0
        self._chunk_bytes += len(body)
        super().on_body(body)
        if self.cycle.response_complete:
            self._ending.discard(len(body))

    def on_message_complete(self) -> None:
        """End a request; what follows is another."""
        if self._upgrading:
            return
        super().on_message_complete()
        self._phase, self._has_scope, self._loose_bytes = _IDLE, False, 0
        self._deadline = math.inf
        if self.cycle.response_complete:  # this was what was left of a body that nobody wanted
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        super()._start_asgi_task(cycle, close_unless_continued(cycle, app) if cycle.waiting_for_100_continue else app)

    def on_response_complete(self) -> None:
        """Answer the next request; or read what is left of this one's body, so that the connection can go on."""
        if len(self.pipeline) == 1 and self._phase == _BODY:  # its turn has come, and so has the time of its body
            self._deadline = self.loop.time() + self._settings.body_timeout_s
        super().on_response_complete()
        if self._phase == _IDLE or self._is_answering() or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        now = self.loop.time()
        if self._phase == _HEAD:
            self._deadline = now + self._settings.header_timeout_s
        else:
            self._ending.begin_discarding()
            self._deadline = self._end_linger(now)

    def _linger(self) -> None:
        """The last answer is on its way: throw away what comes until the client has closed, within bounds."""
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self._deadline = self._end_linger(self.loop.time())

    def _end_linger(self, now: float) -> float:
        return find_linger_end(now, self._began + self._settings.body_timeout_s, is_leaving=self._leaving)

    def _refuse(self, error: RequestError | Unavailable) -> None:
        """Answer with an error in turn; or, where a body comes in, fail that. Listen to nothing else any more."""
        in_body, waiting = self._phase == _BODY, self._is_answering()
        self._deaf, self._phase, self._deadline = True, _IDLE, math.inf
        if in_body:
            self._fail_body(error)
            return
        if not self._has_scope:
            super().on_message_begin()
        self.cycle, self._has_asked = make_refusal_cycle(self, self.scope, self.url, error), True
        if waiting:
            self.pipeline.appendleft((self.cycle, self.app))
        else:
            self._start_asgi_task(self.cycle, self.app)

    def _fail_body(self, error: RequestError | Unavailable) -> None:
        cycle = self.cycle
        if cycle.response_complete:
            self.transport.close()
            return
        cycle.scope["state"][BODY_FAULT] = error
        cycle.more_body = cycle.keep_alive = False
        cycle.message_event.set()

    def sweep(self, now: float) -> None:
        """Look whether this connection's time is over; `now` in seconds of the loop's clock."""
        if now >= self._deadline:
            if self._ending.ended:
                self._stream.abort()
            elif self._phase == _HEAD:
                self._refuse(RequestTimeout(f"the header did not come within {self._settings.header_timeout_s:g} s"))
            elif self._phase == _BODY and self._is_answering():
                self._refuse(body_too_late(self._settings.body_timeout_s))
            else:
                self._ending.close_at_once()
        self._ending.sweep(now)

    @property
    def idle_until(self) -> float | None:
        """When this connection is closed for want of a request, in the loop's time; None while it is in use."""
        timer = self.timeout_keep_alive_task
        return timer.when() if timer is not None and not self.transport.is_closing() else None

    def close(self) -> None:
        """Close without another word."""
        self._ending.close_at_once()

    def shutdown(self) -> None:
        """Close at the end of the service; who is being answered, or may just have begun to ask, is answered."""
        if self._leaving:
            return
        self._leaving = True
        if self._is_answering():
            self.cycle.keep_alive = False
        elif self._phase == _IDLE and self._has_asked and not self._ending.ended:
            self._ending.close_at_once()
        else:
            self._deadline = min(self._deadline, self.loop.time() + LAST_CHANCE_S)


class _PipelineFullError(Exception):
    """Makes the parser stop."""
