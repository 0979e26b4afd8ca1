"""From a request's pictures to the answers about them: each is queued, shared, timed and counted like any other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from starlette.responses import Response

from service.answers.finish import Content
from service.api.gates import trace_pictures
from service.api.hints import find_hint
from service.api.parameters import TIMEOUT_HEADER, read_timeout_s, wants_fresh
from service.api.problems import describe_failure
from service.api.router import PictureRequest
from service.api.scope import listen_for_disconnect
from service.api.state import ServiceState
from service.engine.postprocess import Answer
from service.engine.prepare import Picture
from service.errors import ClientDisconnected, DamagedImage, UnsupportedImage
from service.scheduling.flight import Effort, Job, OnDisconnect
from service.telemetry.metrics import CacheResult, Task
from service.telemetry.timing import Stopwatch, format_server_timing

if TYPE_CHECKING:
    from service.telemetry.spans import PictureTrace

Made = TypeVar("Made")
T = TypeVar("T")
# Given a picture's file, what makes its answer.
Recipe: TypeAlias = Callable[[bytes], Callable[[Answer, Stopwatch], Content]]


@dataclass(frozen=True, slots=True)
class Question:
    """What a request asks about each of its pictures.

    Attributes:
        task: the route.
        timeout_s: seconds until they are of no use any more.
        fresh: neither take a pass from others nor leave one to them.
        owner: whose passes it shares: the id of its key; empty where there are none, or all share.
        effort: of making an answer.
        request_id: of the request.
        on_disconnect: given what to call when the client disconnects; returns what takes that back.
    """

    task: Task
    timeout_s: float
    fresh: bool
    owner: str
    effort: Effort
    request_id: str
    on_disconnect: OnDisconnect

    @classmethod
    def of(cls, request: PictureRequest, task: Task, *, effort: Effort = "some") -> Question:
        """Read what a request says of it.

        Raises:
            InvalidParameter: its timeout is none.
        """
        headers, settings, state = request.headers, request.service.settings, request.scope["state"]
        return cls(
            task=task,
            timeout_s=read_timeout_s(headers.get(TIMEOUT_HEADER), settings.request_timeout_ms),
            fresh=wants_fresh(headers.get("cache-control", "")),
            owner="" if settings.share_across_keys else state.get("key_id", ""),
            effort=effort,
            request_id=state["request_id"],
            on_disconnect=partial(listen_for_disconnect, request.scope, request.receive),
        )


@dataclass(frozen=True, slots=True)
class Reply(Generic[Made]):
    """One picture's answer, where its pass came from, and where its milliseconds went."""

    made: Made
    result: CacheResult
    watch: Stopwatch


async def run_beside(state: ServiceState, question: Question, task: Callable[[], T]) -> tuple[T, Question]:
    """Do what a request needs before its pictures, in their queue; returns what came, and what is left of its time.

    Raises:
        Unavailable: see `Scheduler.run`; or what the task raises.
    """
    began = time.monotonic()
    made = await state.require_scheduler().run(task, question.timeout_s)
    return made, replace(question, timeout_s=max(0.0, question.timeout_s - (time.monotonic() - began)))


async def respond_to_one(request: PictureRequest, question: Question, recipe: Recipe, picture: bytes) -> Response:
    """Answer about one picture.

    Raises:
        RequestError, Unavailable, ModelOutputInvalid, ClientDisconnected: see `Scheduler.submit`.
    """
    watch = Stopwatch()
    (trace,) = trace_pictures(request.scope, [watch])
    answered = await ask(request.service, question, picture, recipe(picture), watch, trace)
    request.scope["state"]["cache_result"] = answered.result
    headers = {"Server-Timing": format_server_timing(watch.timings_ms), "X-Unihead-Cache": answered.result}
    return Response(answered.made.data, media_type=answered.made.media_type, headers=headers)


async def respond_to_each(
    request: PictureRequest, question: Question, recipe: Recipe, pictures: Sequence[bytes]
) -> Response:
    """Answer about several pictures with a JSON array in their order: what each got alone, be it a problem.

    Raises:
        ClientDisconnected: the client disconnected.
    """
    watches = [Stopwatch() for _ in pictures]
    traces = trace_pictures(request.scope, watches)
    asked = (
        ask(request.service, question, picture, recipe(picture), watch, trace)
        for picture, watch, trace in zip(pictures, watches, traces, strict=True)
    )
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    items, results, answered = [], [], []
    for outcome in outcomes:
        if isinstance(outcome, Reply):
            items.append(outcome.made.data)
            results.append(str(outcome.result))
            answered.append(outcome)
        elif isinstance(outcome, Exception) and not isinstance(outcome, ClientDisconnected):
            items.append(describe_failure(request.scope, outcome).model_dump_json(exclude_none=True).encode())
            results.append("error")
        else:
            raise outcome
    request.scope["state"]["cache_result"] = " ".join(sorted(set(results)))
    headers = {"X-Unihead-Cache": ", ".join(results)}
    if answered:
        slowest = max(answered, key=lambda one: one.watch.timings_ms["total"])
        headers["Server-Timing"] = format_server_timing(slowest.watch.timings_ms)
    return Response(b"[%b]" % b",".join(items), media_type="application/json", headers=headers)


async def ask(
    state: ServiceState,
    question: Question,
    picture: Picture,
    finish: Callable[[Answer, Stopwatch], Made],
    watch: Stopwatch,
    trace: PictureTrace | None,
) -> Reply[Made]:
    """Submit one picture with what is to be made of its answer, and count the stages.

    Raises:
        RequestError, Unavailable, ModelOutputInvalid, ClientDisconnected: see `Scheduler.submit`.
    """
    with state.metrics.images_in_flight.track_inprogress():
        job = Job(
            picture,
            finish,
            watch,
            timeout_s=question.timeout_s,
            fresh=question.fresh,
            owner=question.owner,
            effort=question.effort,
            trace=trace,
            on_disconnect=question.on_disconnect,
        )
        try:
            made, result = await state.require_scheduler().submit(job)
        except BaseException as error:
            state.metrics.statistics.note_failure(watch.elapsed_ms())
            if isinstance(error, UnsupportedImage | DamagedImage) and isinstance(picture, bytes):
                sentence = find_hint(picture)
                if sentence is not None:
                    raise type(error)(sentence) from error
            raise
    watch.finish()
    state.metrics.observe_task(question.task, watch.timings_ms, result)
    if state.profile is not None:
        state.profile.write(question.task, question.request_id, result, watch)
    return Reply(made, result, watch)
