"""One connection: how long it may take, how much it may say, and that its answers come in turn.

uvicorn has one timeout, for connections that idle between requests, and its parser takes headers of any size. Here a
connection carries a deadline, which one task looks at for all of them: no request costs a timer.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, cast

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from service.api.scope import BODY_FAULT, DISCONNECT, LIMIT_FAULT, Disconnect
from service.errors import Overloaded, RequestError, Unavailable
from service.memory import MemoryBudget
from service.server.closing import LingeringTransport, close_unless_continued
from service.server.ending import EndingProtocol
from service.server.head import (
    MAX_HEADERS,
    build_error_cycle,
    build_size_error,
    check_head,
    count_head_bytes,
    explain_parser_error,
    fail_body,
    write_without_upgrade,
)
from service.server.message import IncomingMessage
from service.server.places import Places
from service.settings import Settings

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

# Requests that wait on one connection for those before them; who sends more has to send them again.
MAX_PIPELINED = 32


class Protocol(EndingProtocol):
    """HTTP/1.1 as uvicorn speaks it, within limits.

    A request that cannot be read is answered by the app like any other, after those that came before it:
    `REQUEST_FAULT` in its scope's state says why. What is wrong with a body whose request is being answered stands in
    `BODY_FAULT`.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        settings: Settings,
        places: Places,
        memory: MemoryBudget,
    ) -> None:
        """Take what uvicorn hands to every connection, what a request may take, and the budget of unsent answers."""
        super().__init__(config, server_state, app_state, _loop)
        self._settings = settings
        self._places = places
        self._unsent = memory.hold("answers")
        self._is_spare = False
        self._disconnect = Disconnect()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own
        """Begin to wait for a request, in a spare place where there is no other."""
        super().connection_made(transport)
        self._stream = transport
        self._outgoing = LingeringTransport(transport, self._settings.write_timeout_s, self._linger, self._unsent)
        self.transport = cast("asyncio.Transport", self._outgoing)
        self._message = IncomingMessage(self._settings, self.loop.time())
        self._deadline = self._message.head_deadline
        self._is_spare = self._places.take(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever works for this client that it has disconnected."""
        super().connection_lost(exc)
        self._places.leave(self)
        self._unsent.close()
        self._disconnect.tell()

    def data_received(self, data: bytes) -> None:
        """Count what comes, and hand it to the parser."""
        self._unset_keepalive_if_required()
        message = self._message
        if message.phase == "lingering":
            self._outgoing.discard(len(data))
            return
        if message.phase == "stopped":
            self.flow.pause_reading()
            return
        if message.phase == "idle":
            self._begin_message()
        message.overhead_bytes += len(data)
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = self._drop_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                if not isinstance(error.__context__, _PipelineFullError):
                    self._reject(explain_parser_error(error))
                return
        if message.overhead_bytes > self._settings.max_header_bytes:
            self._reject(build_size_error(self._settings.max_header_bytes))

    def _begin_message(self) -> None:
        """Start a message's clock; while another one is answered it may take its time."""
        super().on_message_begin()
        self._message.begin(self.loop.time())
        newest = self._newest
        if newest is not None and newest.response_complete:
            self._places.wait(self)
            self._deadline = self._message.head_deadline

    def on_message_begin(self) -> None:
        """Begin the next request, unless the empty lines before it have."""
        if self._message.phase == "idle":
            self._begin_message()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header.

        Raises:
            HeaderTooLarge: there are too many.
        """
        if self._message.phase != "head":
            return  # a trailer, which must not pass for a header
        if len(self.headers) >= MAX_HEADERS:
            raise build_size_error(self._settings.max_header_bytes)
        super().on_header(name, value.rstrip(b" \t"))  # blanks behind a value are not of it (RFC 9110, sec. 5.5)

    def on_headers_complete(self) -> None:
        """Begin to answer.

        Raises:
            HeaderTooLarge: the head has too many bytes.
            MalformedRequest: the head may be understood in more than one way, or not at all.
        """
        limit = self._settings.max_header_bytes
        method, version = self.parser.get_method(), self.parser.get_http_version()
        self.scope["method"] = method.decode()
        if self._message.overhead_bytes > limit < count_head_bytes(self.url, self.headers):
            raise build_size_error(limit)
        check_head(method, self.url, version, self.headers)
        if self.parser.should_upgrade():
            return  # `data_received` has it read again, without that
        if len(self.pipeline) >= MAX_PIPELINED:
            self._message.phase = "stopped"
            self.cycle.keep_alive = False
            raise _PipelineFullError
        if version == "1.0":
            self.expect_100_continue = False
        self._message.begin_body()
        self._places.work(self)
        self._deadline = math.inf if self._is_answering() else self._message.body_deadline
        self.scope["state"].update({BODY_FAULT: None, DISCONNECT: self._disconnect})
        if self._is_spare:
            sentence = f"{self._places.limit} connections are open, which is the limit"
            self.scope["state"][LIMIT_FAULT] = Overloaded(sentence, reason="connections", retry_after_s=1)
        super().on_headers_complete()
        if self._is_shutting_down or self._is_spare:
            self.cycle.keep_alive = False

    def _drop_upgrade(self) -> bytes:
        """Return the head that has come, to be read again without its wish for another protocol."""
        head = write_without_upgrade(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
        super().on_message_begin()
        return head

    def on_chunk_header(self) -> None:
        """Begin a chunk.

        Raises:
            MalformedRequest: there are too many for what is in them.
        """
        self._message.count_chunk()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body; where the answer is out already, only so much of it."""
        self._message.count_body(len(body))
        super().on_body(body)
        if self.cycle.response_complete:
            self._outgoing.discard(len(body))

    def on_message_complete(self) -> None:
        """End a request; what follows is another."""
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._message.end()
        self._deadline = math.inf
        if self.cycle.response_complete:  # this was what was left of a body that nobody wanted
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        super()._start_asgi_task(cycle, close_unless_continued(cycle, app) if cycle.waiting_for_100_continue else app)

    def on_response_complete(self) -> None:
        """Answer the next request; or read what is left of this one's body, so that the connection can go on."""
        phase = self._message.phase
        if len(self.pipeline) == 1 and phase == "body":  # its turn has come, and so has the time of its body
            self._deadline = self.loop.time() + self._settings.body_timeout_s
        super().on_response_complete()
        if self._is_answering() or self.transport.is_closing():
            return
        self._places.wait(self)
        if phase == "head":
            self._unset_keepalive_if_required()
            self._deadline = self.loop.time() + self._settings.header_timeout_s
        elif phase == "body":
            self._unset_keepalive_if_required()
            self._outgoing.begin_discarding()
            self._deadline = self._compute_linger_deadline(self.loop.time())

    def _reject(self, error: RequestError | Unavailable) -> None:
        """Answer with an error in turn; or, where a body comes in, fail that. Read no more."""
        phase, is_answering = self._message.phase, self._is_answering()
        if phase == "idle":
            super().on_message_begin()
        self._message.phase, self._deadline = "stopped", math.inf
        if phase == "body" and is_answering:
            fail_body(self.cycle, error)
        elif phase == "body":
            self.transport.close()
        else:
            self.cycle = build_error_cycle(self, self.scope, self.url, error)
            if is_answering:
                self.pipeline.appendleft((self.cycle, self.app))
            else:
                self._start_asgi_task(self.cycle, self.app)


class _PipelineFullError(Exception):
    """Makes the parser stop."""
