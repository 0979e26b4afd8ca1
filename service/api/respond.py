"""From a request's pictures to the answers about them: each is queued, shared, timed and counted like any other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from starlette.responses import Response

from service.answers.cost import NOTHING, AnswerCost
from service.answers.finish import Content
from service.api.forms import FIELD_NAME
from service.api.hints import find_hint
from service.api.parameters import TIMEOUT_HEADER, read_timeout_s, wants_fresh
from service.api.problems import describe_failure
from service.api.router import Caller, PictureRequest
from service.api.scope import listen_for_disconnect
from service.api.state import ServiceState
from service.engine.postprocess import Answer
from service.engine.prepare import Look, Picture
from service.errors import ClientDisconnected, DamagedImage, UnsupportedImage
from service.memory import Share
from service.pictures.limits import PictureHeader
from service.scheduling.job import Effort, Job, OnDisconnect
from service.telemetry.metrics import CacheResult, Task
from service.telemetry.timing import Stopwatch, format_server_timing

if TYPE_CHECKING:
    from service.telemetry.spans import PictureTrace

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a request's answers are made.

    Attributes:
        finish: given a picture's file, what makes its answer.
        estimate: given its header, what that costs.
    """

    finish: Callable[[bytes], Callable[[Answer, Stopwatch], Content]]
    estimate: Callable[[PictureHeader], AnswerCost]

    def cost_of(self, seen: Look) -> AnswerCost:
        """What the answer about a file costs."""
        return NOTHING if seen.header is None else self.estimate(seen.header)


@dataclass(frozen=True, slots=True)
class Question:
    """What a request asks about each of its pictures.

    Attributes:
        task: the route.
        field: of a form that holds its pictures.
        timeout_s: seconds until they are of no use any more.
        fresh: neither take a pass from others nor leave one to them.
        owner: whose passes it shares: the id of its key; empty where there are none, or all share.
        effort: of making an answer.
        request_id: of the request.
        on_disconnect: given what to call when the client disconnects, returns what takes that back; None where the
            request's task is cancelled then.
    """

    task: Task
    field: str
    timeout_s: float
    fresh: bool
    owner: str
    effort: Effort
    request_id: str
    on_disconnect: OnDisconnect | None = None

    @classmethod
    def of(cls, request: PictureRequest, task: Task, *, effort: Effort = "some", field: str = FIELD_NAME) -> Question:
        """Read what a request says of it.

        Raises:
            InvalidParameter: its timeout is none.
        """
        headers, settings = request.headers, request.service.settings
        return cls(
            task=task,
            field=field,
            timeout_s=read_timeout_s(headers.get(TIMEOUT_HEADER), settings.request_timeout_ms),
            fresh=wants_fresh(headers.get("cache-control", "")),
            owner=find_owner(request),
            effort=effort,
            request_id=request.scope["state"]["request_id"],
            on_disconnect=partial(listen_for_disconnect, request.scope, request.receive),
        )

    def make_job(
        self,
        picture: Picture,
        finish: Callable[[Answer, Stopwatch], Made],
        watch: Stopwatch,
        trace: PictureTrace | None,
        look: Look,
        making: int,
        share: Share,
    ) -> Job[Made]:
        """Ask it about one picture; what follows `picture` is as in `Job`. The time since `watch` began counts."""
        return Job(
            picture,
            finish,
            watch,
            timeout_s=self.timeout_s - watch.elapsed_ms() / 1000,
            fresh=self.fresh,
            owner=self.owner,
            effort=self.effort,
            trace=trace,
            on_disconnect=self.on_disconnect,
            look=look,
            making=making,
            share=share,
        )


def find_owner(request: PictureRequest) -> str:
    """Return whose passes a request shares, as `Question` has it; once its key is known."""
    return "" if request.service.settings.share_across_keys else request.scope["state"].get("key_id", "")


@dataclass(frozen=True, slots=True)
class Reply(Generic[Made]):
    """One picture's answer, where its pass came from, and where its milliseconds went."""

    made: Made
    result: CacheResult
    watch: Stopwatch


async def run_beside(
    caller: Caller, question: Question, call: Callable[[], Made], *, work: int, again: bool = False
) -> tuple[Made, Question]:
    """Have a worker do what a request needs beside its pictures, in their queue.

    Args:
        caller: on whose behalf.
        question: that it asks.
        call: tens of milliseconds of work.
        work: bytes of memory that it needs.
        again: the request was admitted before, and is not refused now.

    Returns:
        What came, and the question with what is left of its time.

    Raises:
        RequestError, Unavailable, ClientDisconnected: see `Errands.run`; or what the call raises.
    """
    began, errands = time.monotonic(), caller.service.require_scheduler().errands
    made = await errands.run(
        call,
        work=work,
        timeout_s=question.timeout_s,
        share=caller.share,
        on_disconnect=question.on_disconnect,
        again=again,
    )
    return made, replace(question, timeout_s=max(0.0, question.timeout_s - (time.monotonic() - began)))


@contextmanager
def _note_failure(state: ServiceState, question: Question, picture: Picture, watch: Stopwatch) -> Iterator[None]:
    """Count a picture that fails; one that is none is told what it probably is."""
    try:
        yield
    except BaseException as error:
        state.metrics.statistics.note_failure(watch.elapsed_ms())
        if isinstance(error, UnsupportedImage | DamagedImage) and isinstance(picture, bytes):
            sentence = find_hint(picture, question.field)
            if sentence is not None:
                raise type(error)(sentence) from error
        raise


async def look(caller: Caller, question: Question, picture: Picture, watch: Stopwatch) -> Look:
    """Look at a picture before anything waits for it.

    Raises:
        RequestError, NotReady: see `Scheduler.look`.
    """
    state = caller.service
    with _note_failure(state, question, picture, watch):
        return await state.require_scheduler().look(picture, fresh=question.fresh)


async def respond_to_one(request: PictureRequest, question: Question, recipe: Recipe, picture: bytes) -> Response:
    """Answer about one picture.

    Raises:
        RequestError, Unavailable, ModelOutputInvalid, ClientDisconnected: see `Scheduler.submit`.
    """
    watch, share = Stopwatch(), request.share
    (trace,) = request.trace_pictures([watch])
    seen = await look(request, question, picture, watch)
    cost = recipe.cost_of(seen)
    share.expect(cost.kept)
    job = question.make_job(picture, recipe.finish(picture), watch, trace, seen, cost.making, share)
    answered = await ask(request.service, question, job)
    request.scope["state"]["cache_result"] = answered.result
    share.settle(len(answered.made.data))
    headers = {"Server-Timing": format_server_timing(watch.timings_ms), "X-Unihead-Cache": answered.result}
    return Response(answered.made.data, media_type=answered.made.media_type, headers=headers)


async def look_at_each(
    caller: Caller, question: Question, pictures: Sequence[Picture], watches: Sequence[Stopwatch]
) -> list[Look | BaseException]:
    """Look at all pictures of a request, so that the room for their answers can be taken in one step."""
    looks = (look(caller, question, picture, watch) for picture, watch in zip(pictures, watches, strict=True))
    return await asyncio.gather(*looks, return_exceptions=True)


def require_all(looks: Sequence[Look | BaseException]) -> list[Look]:
    """Return the looks.

    Raises:
        RequestError, Unavailable: the first picture that is refused.
    """
    for one in looks:
        if isinstance(one, BaseException):
            raise one
    return [one for one in looks if isinstance(one, Look)]


async def respond_to_each(
    request: PictureRequest, question: Question, recipe: Recipe, pictures: Sequence[bytes]
) -> Response:
    """Answer about several pictures with a JSON array in their order: what each got alone, be it a problem.

    Raises:
        ClientDisconnected: the client disconnected.
        TooManyPixels: all answers together are too large.
    """
    watches = [Stopwatch() for _ in pictures]
    traces = request.trace_pictures(watches)
    looks, share = await look_at_each(request, question, pictures, watches), request.share
    share.expect(sum(recipe.cost_of(seen).kept for seen in looks if isinstance(seen, Look)))

    async def ask_about(picture: bytes, seen: Look | BaseException, number: int) -> Reply[Content]:
        if isinstance(seen, BaseException):
            raise seen
        making = recipe.cost_of(seen).making
        job = question.make_job(picture, recipe.finish(picture), watches[number], traces[number], seen, making, share)
        return await ask(request.service, question, job)

    asked = (ask_about(picture, seen, i) for i, (picture, seen) in enumerate(zip(pictures, looks, strict=True)))
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    items, results, answered = [], [], []
    for outcome in outcomes:
        if isinstance(outcome, Reply):
            items.append(outcome.made.data)
            results.append(str(outcome.result))
            answered.append(outcome)
        elif isinstance(outcome, Exception) and not isinstance(outcome, ClientDisconnected):
            items.append(describe_failure(question.request_id, outcome).model_dump_json(exclude_none=True).encode())
            results.append("error")
        else:
            raise outcome
    request.scope["state"]["cache_result"] = " ".join(sorted(set(results)))
    headers = {"X-Unihead-Cache": ", ".join(results)}
    if answered:
        slowest = max(answered, key=lambda one: one.watch.timings_ms["total"])
        headers["Server-Timing"] = format_server_timing(slowest.watch.timings_ms)
    content = b"[%b]" % b",".join(items)
    share.settle(len(content))
    return Response(content, media_type="application/json", headers=headers)


async def ask(state: ServiceState, question: Question, job: Job[Made]) -> Reply[Made]:
    """Submit one picture with what is to be made of its answer, and count the stages.

    Raises:
        RequestError, Unavailable, ModelOutputInvalid, ClientDisconnected: see `Scheduler.submit`.
    """
    with state.metrics.images_in_flight.track_inprogress(), _note_failure(state, question, job.picture, job.watch):
        made, result = await state.require_scheduler().submit(job)
    watch = job.watch
    watch.finish()
    state.metrics.observe_task(question.task, watch.timings_ms, result)
    if state.profile is not None:
        state.profile.write(question.task, question.request_id, result, watch)
    return Reply(made, result, watch)
