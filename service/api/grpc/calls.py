"""What stands before and behind every method: an id, a key, load shedding, memory, a count, a line in the log, a trace.

The same as HTTP's gates, in their order and with their words; only the status of a failure has another name.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, cast

import grpc

from service.api.gates import KEY_DETAIL, find_presented_key
from service.api.grpc.peers import disconnect
from service.api.grpc.reading import Reading
from service.api.grpc.statuses import find_status
from service.api.middleware import choose_id
from service.api.problems import describe_failure
from service.api.state import ServiceState
from service.errors import BodyTooLarge, Draining, MalformedRequest, Unauthorized
from service.memory import Share
from service.settings import MAX_TIMEOUT_MS
from service.telemetry.logs import log_request
from service.telemetry.timing import Stopwatch

if TYPE_CHECKING:
    from service.telemetry.spans import PictureTrace, RequestTrace

logger = logging.getLogger("unihead")

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"

# Of a request that asks about no picture.
_LITTLE_BYTES = 4096
# A client that takes less of its answer, once write_timeout_s is over, loses its connection.
_LEAST_BYTES_A_S = 2**18
# The statuses of a server that has failed, say the conventions for traces.
_FAILURES = frozenset({grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE})


@dataclass(slots=True, eq=False)
class Call:
    """One call, as a `Caller`.

    Attributes:
        service: what takes its pictures.
        share: what it holds of the budget of memory, until its answer has been sent.
        path: of its method.
        request_id: that it has brought, or a new one.
        metadata: that it has brought, as headers of HTTP.
        context: of grpc.aio.
        key_id: of its key; empty where there are none.
        cache: where the pass of each of its pictures came from.
        timings: of its first picture, as Server-Timing has them.
        trace: if there is one.
        sending: ends its connection if the answer is not taken in time.
        started: when it came, in seconds of time.perf_counter.
    """

    service: ServiceState
    share: Share
    path: str
    request_id: str
    metadata: Sequence[tuple[bytes, bytes]]
    context: Context
    key_id: str = ""
    cache: list[str] = field(default_factory=list)
    timings: str = ""
    trace: RequestTrace | None = None
    sending: asyncio.TimerHandle | None = None
    started: float = field(default_factory=time.perf_counter)

    def trace_pictures(self, watches: Sequence[Stopwatch]) -> Sequence[PictureTrace | None]:
        """Begin the traces of its pictures, one for each stopwatch; None for each where there is no tracing."""
        return [None] * len(watches) if self.trace is None else self.trace.add_pictures(watches)

    def find(self, name: str) -> str:
        """Return a piece of metadata, by its name in lower case; empty if there is none."""
        wanted = name.encode()
        return next((value.decode("latin-1") for key, value in self.metadata if key == wanted), "")

    def find_timeout_s(self) -> float:
        """Seconds that the client waits at most; the default where it says nothing (grpc-timeout)."""
        remaining_s: float | None = self.context.time_remaining()
        if remaining_s is None:
            return self.service.settings.request_timeout_ms / 1000
        return min(remaining_s, MAX_TIMEOUT_MS / 1000)


async def receive(context: Context) -> bytes | None:
    """Receive the message of a call; None if there is none, or one that is too long."""
    message: object = await context.read()
    return message if isinstance(message, bytes) else None  # grpc.aio.EOF


@dataclass(frozen=True, slots=True)
class Method:
    """What is answered under one path.

    Attributes:
        path: /package.Service/Method.
        answer: given the call and its message, gives the answer's.
        is_open: without a key.
        takes_pictures: it is shed and traced, and its message may be as long as a body over HTTP.
    """

    path: str
    answer: Callable[[Call, bytes], Awaitable[bytes]]
    is_open: bool = False
    takes_pictures: bool = False


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How a call has ended."""

    status: grpc.StatusCode
    http_status: int
    code: str = ""


_ANSWERED = _Outcome(grpc.StatusCode.OK, HTTPStatus.OK)
_UNKNOWN = _Outcome(grpc.StatusCode.UNIMPLEMENTED, HTTPStatus.NOT_FOUND)
_LEFT = _Outcome(grpc.StatusCode.CANCELLED, 499)  # its client has left; as HTTP's gates have it


class Front:
    """Answers calls, each of which it sees from its first byte to its answer's last one.

    Attributes:
        running: the tasks of the calls that are not answered yet.
        port: where they come in.
    """

    def __init__(self, state: ServiceState, reading: Reading) -> None:
        """Take what a call needs.

        Args:
            state: of the app.
            reading: how messages get in.
        """
        self.port = 0
        self.running: set[asyncio.Task[object]] = set()
        self._state = state
        self._reading = reading
        self._is_over = False

    def make_handler(self, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
        """Make what grpc.aio calls. It streams requests, so that a message is read when there is room for it."""

        async def handle(_: object, context: Context) -> bytes:
            return await self._serve(method, context)

        return grpc.stream_unary_rpc_method_handler(handle)

    def cancel(self) -> None:
        """Answer UNAVAILABLE to all that is not answered yet: the service cannot wait any longer."""
        self._is_over = True
        for task in self.running:
            task.cancel()

    def count_unknown(self) -> None:
        """Count a call of a method that there is not."""
        self._note("unmatched", _UNKNOWN, None)

    async def _serve(self, method: Method, context: Context) -> bytes:
        call = self._open(method, context)
        try:
            content = await self._answer(method, call)
        except asyncio.CancelledError:
            if not self._is_over:
                self._note(call.path, _LEFT, call)
                raise
            sentence = "the service stops and cannot wait for this answer any longer; ask another one"
            await self._refuse(call, Draining(sentence))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a status, and nothing of a surprise
            await self._refuse(call, error)
        call.share.settle(len(content))
        context.set_trailing_metadata(_list_trailers(call))
        self._limit_sending(call, len(content))
        self._note(call.path, _ANSWERED, call)
        return content

    def _open(self, method: Method, context: Context) -> Call:
        metadata = [
            (key.encode(), value if isinstance(value, bytes) else value.encode("latin-1", "replace"))
            for key, value in context.invocation_metadata() or ()
        ]
        call = Call(self._state, Share(self._state.memory), method.path, "", metadata, context)
        call.request_id = choose_id(call.find("x-request-id"))
        task = cast("asyncio.Task[object]", asyncio.current_task())
        self.running.add(task)

        def close(_: Context) -> None:
            call.share.close()
            if call.sending is not None:
                call.sending.cancel()
            self.running.discard(task)

        context.add_done_callback(close)  # type: ignore[arg-type]  # of a class in its types, where any callable will do
        return call

    async def _answer(self, method: Method, call: Call) -> bytes:
        state = self._state
        if state.keys is not None and not method.is_open:
            presented = find_presented_key(call.metadata)
            key_id = None if presented is None else state.keys.keys.find(presented)
            if key_id is None:
                state.metrics.unauthorized_requests.inc()
                raise Unauthorized(KEY_DETAIL)
            call.key_id = key_id
        if method.takes_pictures and state.tracing is not None:
            name = method.path.removeprefix("/")
            attributes = {"rpc.system.name": "grpc", "rpc.method": name}
            call.trace = state.tracing.begin(name, attributes, request_id=call.request_id, headers=call.metadata)
        if method.takes_pictures and state.scheduler is not None:
            state.scheduler.shed()
        message = await self._reading.read(partial(receive, call.context), call.share)
        if message is None:
            most = state.settings.max_body_bytes
            raise MalformedRequest(f"no message has come, or one of more than {most} bytes, the limit")
        if not method.takes_pictures and len(message) > _LITTLE_BYTES:
            raise BodyTooLarge(f"the message has {len(message)} bytes; this method takes {_LITTLE_BYTES}")
        return await method.answer(call, message)

    def _limit_sending(self, call: Call, number: int) -> None:
        """Give the client so long to take an answer of so many bytes; what it does not take keeps memory."""
        most_s = self._state.settings.write_timeout_s + number / _LEAST_BYTES_A_S
        call.sending = asyncio.get_running_loop().call_later(most_s, self._give_up, call)

    def _give_up(self, call: Call) -> None:
        is_ended = disconnect(call.context.peer(), self.port)
        fields = {"request_id": call.request_id}
        what = "its connection is closed" if is_ended else "its connection cannot be found"
        logger.warning(
            "the answer of request %s was not taken in time: %s", call.request_id, what, extra={"fields": fields}
        )

    async def _refuse(self, call: Call, error: Exception) -> NoReturn:
        problem = describe_failure(call.request_id, error)
        outcome = _Outcome(find_status(error), problem.status, problem.code)
        trailers = (*_list_trailers(call), ("x-unihead-code", outcome.code))
        if problem.retry_after_s is not None:
            # gRPC's own word for it, which its clients heed when they try again (proposal A6), and HTTP's.
            retry_after_s = problem.retry_after_s
            trailers += (("grpc-retry-pushback-ms", str(retry_after_s * 1000)), ("retry-after", str(retry_after_s)))
        self._note(call.path, outcome, call)
        await call.context.abort(outcome.status, problem.detail, trailers)

    def _note(self, path: str, outcome: _Outcome, call: Call | None) -> None:
        """Count a call that is over, and write its trace and its line in the log."""
        self._state.metrics.count_request(route=path, method="POST", status=outcome.http_status, protocol="grpc")
        fields: dict[str, str | float | None] = {
            "request_id": None if call is None else call.request_id,
            "protocol": "grpc",
            "route": path,
            "status": int(outcome.http_status),
            "grpc_status": outcome.status.name,
        }
        if call is not None:
            fields["ms"] = round((time.perf_counter() - call.started) * 1000, 3)
            trace_id = "" if call.trace is None else call.trace.trace_id
            results = " ".join(sorted(set(call.cache)))
            notes = {"cache": results, "code": outcome.code, "key": call.key_id, "trace_id": trace_id}
            fields |= {name: note for name, note in notes.items() if note}
        log_request(fields)
        if call is not None and call.trace is not None:
            attributes = {"rpc.response.status_code": outcome.status.name}
            error = outcome.code or outcome.status.name if outcome.status in _FAILURES else None
            call.trace.finish(attributes, problem_code=outcome.code or None, error=error)


def _list_trailers(call: Call) -> tuple[tuple[str, str], ...]:
    """What is sent behind an answer, in the names that HTTP's headers have."""
    trailers = {
        "x-request-id": call.request_id,
        "x-unihead-cache": ", ".join(call.cache),
        "server-timing": call.timings,
    }
    return tuple((name, value) for name, value in trailers.items() if value)
