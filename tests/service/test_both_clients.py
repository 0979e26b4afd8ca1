"""What holds for `Client` and for `AsyncClient`, which are written out one beside the other."""

from __future__ import annotations

import asyncio
import gc
import inspect
import io
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias, assert_type

import httpx
import pytest

from service.client import (
    Answer,
    AsyncClient,
    Client,
    NoAnswer,
    Overloaded,
    Picture,
    Result,
    Unauthorized,
    UniheadError,
    UnreadableAnswer,
    UnsupportedImage,
)

URL = "http://unihead/eyes"
PICTURE = b"a picture"
ANSWER = {
    "model": {"name": "unihead", "version": "tiny"},
    "image": {"width": 3, "height": 2},
    "detections": [{"box": [0, 1, 2, 2], "label": "cat", "label_id": 15, "score": 0.5}],
    "timing_ms": {"total": 1.5},
}
# As help() shows them. Whoever changes one changes what programs may rely on.
SIGNATURES = {
    "__init__": "(self, url: 'str', key: 'str | None' = None, *, timeout_s: 'float' = 10, retries: 'int' = 2, "
    "at_once: 'int' = 8, http: 'httpx.{} | None' = None) -> 'None'",
    "close": "(self) -> 'None'",
    "predict": "(self, picture: 'Picture', **options: 'Unpack[Options]') -> 'Result'",
    "segment": "(self, picture: 'Picture', **options: 'Unpack[Options]') -> 'Result'",
    "detect": "(self, picture: 'Picture', **options: 'Unpack[Options]') -> 'Result'",
    "classify": "(self, picture: 'Picture', **options: 'Unpack[Options]') -> 'Result'",
    "predict_many": "(self, pictures: 'Iterable[Picture]', **options: 'Unpack[Options]') -> 'list[Answer]'",
    "info": "(self) -> 'dict[str, Any]'",
    "ready": "(self) -> 'bool'",
}
METHODS = [name for name in SIGNATURES if name != "__init__"]

Kind: TypeAlias = type[Client] | type[AsyncClient]
both = pytest.mark.parametrize("kind", [Client, AsyncClient])


class Clock:
    """Time that passes in pauses only, and the pauses that each client made."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: dict[Kind, list[float]] = {Client: [], AsyncClient: []}

    def sleep(self, seconds: float) -> None:
        self.pauses[Client].append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.pauses[AsyncClient].append(seconds)
        self.now += seconds

    def pauses_of(self, kind: Kind) -> list[float]:
        """Its pauses; the other client's way to wait would have blocked the loop, or not waited at all."""
        assert all(not made for other, made in self.pauses.items() if other is not kind)
        return self.pauses[kind]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    monkeypatch.setattr(asyncio, "sleep", clock.sleep_async)
    return clock


def make_http(kind: Kind, handle: Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]) -> Any:  # noqa: ANN401 - httpx's client of that kind
    http = httpx.Client if kind is Client else httpx.AsyncClient
    return http(transport=httpx.MockTransport(handle))  # type: ignore[arg-type]  # what is awaited goes to the one that awaits


class Asking:
    """Either client of a service that answers so, one time after another, and the requests that come."""

    def __init__(self, kind: Kind, *answers: httpx.Response | Exception, **options: Any) -> None:  # noqa: ANN401 - the client's
        self.requests: list[httpx.Request] = []
        self._answers = answers
        self.client = kind(options.pop("url", URL), http=make_http(kind, self._answer), **options)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        # A new one each time: one that was read by one kind of client cannot be read by the other.
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def ask(self, method: str, *words: object, **options: object) -> Any:  # noqa: ANN401 - the client's
        """Call a method, and wait for what it gives."""
        return wait_for(getattr(self.client, method)(*words, **options))


def wait_for(answer: Any) -> Any:  # noqa: ANN401 - whatever it is
    return asyncio.run(answer) if inspect.iscoroutine(answer) else answer


def good() -> httpx.Response:
    return httpx.Response(200, json=ANSWER)


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "detail": f"it is {code}"}, headers=headers)


# What programs see


@both
@pytest.mark.parametrize("name", SIGNATURES)
def test_a_signature_is_what_it_was(kind: Kind, name: str) -> None:
    expected = SIGNATURES[name].replace("{}", kind.__name__)
    assert str(inspect.signature(getattr(kind, name))) == expected


def test_both_have_the_same_methods_and_say_the_same_about_them() -> None:
    public = [{name for name in dir(kind) if not name.startswith("_")} for kind in (Client, AsyncClient)]
    assert public == [set(METHODS), set(METHODS)]
    for name in METHODS:
        assert inspect.getdoc(getattr(Client, name)) == inspect.getdoc(getattr(AsyncClient, name))


@pytest.mark.parametrize("name", METHODS)
def test_one_waits_and_the_other_is_awaited(name: str) -> None:
    assert not inspect.iscoroutinefunction(getattr(Client, name))
    assert inspect.iscoroutinefunction(getattr(AsyncClient, name))


def test_types_of_the_client_are_told() -> None:
    with Client(URL, http=make_http(Client, lambda _: good())) as client:
        assert_type(client, Client)
        for answer in (client.predict(PICTURE), client.segment(PICTURE), client.detect(PICTURE)):
            assert_type(answer, Result)
        assert_type(client.classify(PICTURE), Result)
        assert_type(client.predict_many([PICTURE]), list[Answer])
        assert_type(client.info(), dict[str, Any])
        assert assert_type(client.ready(), bool)


@pytest.mark.anyio
async def test_types_of_the_async_client_are_told() -> None:
    async with AsyncClient(URL, http=make_http(AsyncClient, lambda _: good())) as client:
        assert_type(client, AsyncClient)
        for answer in (client.predict(PICTURE), client.segment(PICTURE), client.detect(PICTURE)):
            assert_type(await answer, Result)
        assert_type(await client.classify(PICTURE), Result)
        assert_type(await client.predict_many([PICTURE]), list[Answer])
        assert_type(await client.info(), dict[str, Any])
        assert assert_type(await client.ready(), bool)


def test_the_client_closes_its_connections() -> None:
    http = httpx.Client()
    with Client(URL, http=http) as client:
        assert isinstance(client, Client)
        assert not http.is_closed
    assert http.is_closed


@pytest.mark.anyio
async def test_the_async_client_closes_its_connections() -> None:
    http = httpx.AsyncClient()
    async with AsyncClient(URL, http=http) as client:
        assert isinstance(client, AsyncClient)
        assert not http.is_closed
    assert http.is_closed


@both
def test_idle_connections_are_closed_before_the_service_closes_them(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(httpx, kind.__name__, lambda **options: made.append(options))
    kind(URL)
    assert [options["limits"].keepalive_expiry for options in made] == [60]


@both
@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", ""])
def test_an_address_that_is_none_is_refused(kind: Kind, url: str) -> None:
    with pytest.raises(ValueError, match="no address of a service"):
        kind(url)


# What is sent


@both
@pytest.mark.parametrize(
    ("method", "options", "query"),
    [
        ("predict", {}, {"mask": "rle"}),
        ("predict", {"tasks": "detect", "mask": True}, {"tasks": "detect", "mask": "rle"}),
        ("predict", {"tasks": ("detect", "classify"), "mask": False}, {"tasks": "detect,classify", "mask": "none"}),
        ("segment", {}, {"mask": "rle"}),
        ("segment", {"mask": False}, {"mask": "none"}),
        ("detect", {}, {}),
        ("detect", {"score_threshold": 0.25, "max_detections": 3}, {"score_threshold": "0.25", "max_detections": "3"}),
        ("classify", {}, {}),
        ("classify", {"top_k": 2}, {"top_k": "2"}),
    ],
)
def test_a_picture_is_sent_with_its_options(
    kind: Kind, method: str, options: dict[str, Any], query: dict[str, str]
) -> None:
    asking = Asking(kind, good(), url=f"{URL}/", key="uh_secret", timeout_s=8)
    result = asking.ask(method, io.BytesIO(PICTURE), **options)
    assert isinstance(result, Result)
    assert (result.width, result.detections[0].label, result.picture) == (3, "cat", PICTURE)
    (request,) = asking.requests
    assert (request.method, request.url.path, dict(request.url.params)) == ("POST", f"/eyes/{method}", query)
    assert request.content == PICTURE
    assert request.headers["Authorization"] == "Bearer uh_secret"
    assert request.headers["X-Request-Timeout-Ms"] == "8000"
    assert set(request.extensions["timeout"].values()) == {8.25}


@both
@pytest.mark.parametrize(("method", "path"), [("info", "/eyes/info"), ("ready", "/eyes/readyz")])
def test_what_needs_no_picture_is_sent_without(kind: Kind, method: str, path: str) -> None:
    asking = Asking(kind, httpx.Response(200, json={"model": "x"}))
    assert asking.ask(method) == {"info": {"model": "x"}, "ready": True}[method]
    (request,) = asking.requests
    assert (request.method, request.url.path, request.url.query, request.content) == ("GET", path, b"", b"")
    assert "Authorization" not in request.headers
    assert request.headers["X-Request-Timeout-Ms"] == "10000"


@both
def test_a_picture_that_cannot_be_read_is_not_sent(kind: Kind) -> None:
    asking = Asking(kind, good())
    with pytest.raises(FileNotFoundError):
        asking.ask("predict", "missing.jpg")
    assert asking.requests == []


def test_the_async_client_reads_pictures_in_another_thread() -> None:
    threads: list[int] = []

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            threads.append(threading.get_ident())
            return super().read(size)

    asking = Asking(AsyncClient, good())
    asking.ask("predict", Slow(PICTURE))
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


# What comes back


@both
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (problem(401, "unauthorized"), Unauthorized),
        (problem(415, "unsupported_image"), UnsupportedImage),
        (problem(418, "new"), UniheadError),
        (httpx.Response(502, text="<html>bad gateway</html>"), UniheadError),
        (httpx.Response(204), UniheadError),
        (httpx.Response(200, text="hello"), UnreadableAnswer),
    ],
)
def test_what_would_fail_again_is_raised_at_once(
    kind: Kind, answer: httpx.Response, error: type[UniheadError], clock: Clock
) -> None:
    asking = Asking(kind, answer)
    with pytest.raises(UniheadError) as caught:
        asking.ask("predict", PICTURE)
    assert (type(caught.value), caught.value.status) == (error, answer.status_code)
    assert (len(asking.requests), clock.pauses_of(kind)) == (1, [])


@both
@pytest.mark.parametrize(
    ("answer", "ready"), [(good(), True), (problem(503, "not_ready"), False), (httpx.ConnectError("refused"), False)]
)
def test_whether_it_is_ready_is_asked_once(
    kind: Kind, answer: httpx.Response | Exception, ready: bool, clock: Clock
) -> None:
    asking = Asking(kind, answer, retries=5)
    assert asking.ask("ready") is ready
    assert (len(asking.requests), clock.pauses_of(kind)) == (1, [])


@both
@pytest.mark.parametrize("answer", [problem(401, "unauthorized"), httpx.Response(404, text="not here")])
def test_what_is_no_answer_about_being_ready_is_raised(kind: Kind, answer: httpx.Response) -> None:
    with pytest.raises(UniheadError):
        Asking(kind, answer).ask("ready")


# Another try


@both
def test_a_service_without_time_is_asked_again_when_it_says(kind: Kind, clock: Clock) -> None:
    busy = problem(503, "overloaded", **{"Retry-After": "2"})
    asking = Asking(kind, busy, httpx.ReadError(""), good())
    assert asking.ask("predict", PICTURE).width == 3
    assert [request.content for request in asking.requests] == [PICTURE] * 3
    first, second = clock.pauses_of(kind)
    assert 2.05 <= first <= 2.1
    assert 0.1 <= second <= 0.2


@both
def test_info_is_asked_again_as_well(kind: Kind, clock: Clock) -> None:
    asking = Asking(kind, problem(503, "not_ready"), httpx.Response(200, json={"model": "x"}))
    assert asking.ask("info") == {"model": "x"}
    assert (len(asking.requests), len(clock.pauses_of(kind))) == (2, 1)


@both
@pytest.mark.parametrize("retries", [0, 4])
def test_tries_end(kind: Kind, retries: int, clock: Clock) -> None:
    broken = httpx.ConnectError("refused")
    asking = Asking(kind, broken, retries=retries)
    with pytest.raises(NoAnswer, match=f"{URL} does not answer: refused") as caught:
        asking.ask("predict", PICTURE)
    assert (len(asking.requests), len(clock.pauses_of(kind))) == (retries + 1, retries)
    assert caught.value.__cause__ is broken
    assert (caught.value.status, caught.value.code) == (0, "no_answer")


@both
def test_an_error_without_words_is_told_by_its_name(kind: Kind) -> None:
    with pytest.raises(NoAnswer, match=r"does not answer: ReadTimeout$"):
        Asking(kind, httpx.ReadTimeout("")).ask("predict", PICTURE)


@both
def test_each_answer_has_all_tries(kind: Kind) -> None:
    broken = httpx.ConnectError("refused")
    asking = Asking(kind, broken, good(), broken, good(), broken, good(), retries=1)
    assert [asking.ask("predict", PICTURE).width for _ in range(3)] == [3, 3, 3]
    assert len(asking.requests) == 6


@both
def test_each_try_says_how_much_time_is_left(kind: Kind, clock: Clock) -> None:
    asking = Asking(kind, problem(503, "overloaded", **{"Retry-After": "3"}), timeout_s=8, retries=9)
    with pytest.raises(Overloaded):
        asking.ask("predict", PICTURE)
    first, second = clock.pauses_of(kind)
    left_s = [8, 8 - first, 8 - first - second]
    assert [int(request.headers["X-Request-Timeout-Ms"]) for request in asking.requests] == [
        round(1000 * one) for one in left_s
    ]
    assert [request.extensions["timeout"]["read"] for request in asking.requests] == pytest.approx(
        [one + 0.25 for one in left_s]
    )


@both
def test_the_clock_starts_when_the_picture_is_there(kind: Kind, clock: Clock) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            clock.now += 60
            return super().read(size)

    asking = Asking(kind, good(), timeout_s=8)
    asking.ask("predict", Slow(PICTURE))
    assert asking.requests[0].headers["X-Request-Timeout-Ms"] == "8000"


@both
def test_waiting_beyond_the_deadline_is_not_begun(kind: Kind, clock: Clock) -> None:
    asking = Asking(kind, problem(503, "overloaded", **{"Retry-After": "11"}))
    with pytest.raises(Overloaded) as caught:
        asking.ask("predict", PICTURE)
    assert (len(asking.requests), clock.pauses_of(kind), caught.value.retry_after_s) == (1, [], 11)


def test_who_stops_to_wait_for_the_async_client_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = asyncio.Event()

    async def sleep(_: float) -> None:
        waits.set()
        await asyncio.Event().wait()

    async def cancel(client: AsyncClient) -> None:
        task = asyncio.ensure_future(client.predict(PICTURE))
        await waits.wait()
        task.cancel()
        await task

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asking = Asking(AsyncClient, problem(503, "overloaded"))
    assert isinstance(asking.client, AsyncClient)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel(asking.client))
    assert len(asking.requests) == 1


# Many


@both
def test_many_come_back_in_order_with_what_went_wrong_in_place(kind: Kind) -> None:
    sent: list[bytes] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request.content)
        assert dict(request.url.params) == {"tasks": "detect", "top_k": "2", "mask": "none"}
        if request.content == b"bad":
            return problem(415, "unsupported_image")
        return httpx.Response(200, json={**ANSWER, "image": {"width": int(request.content), "height": 1}})

    pictures: list[Picture] = [*(str(width).encode() for width in range(1, 21)), b"bad", "missing.jpg"]
    client = kind(URL, http=make_http(kind, handle))
    answers = wait_for(client.predict_many(iter(pictures), tasks=["detect"], top_k=2, mask=False))
    assert [one.width for one in answers[:20]] == list(range(1, 21))
    assert [type(one).__name__ for one in answers[20:]] == ["UnsupportedImage", "FileNotFoundError"]
    assert len(sent) == 21


@both
def test_none_is_as_good_as_many(kind: Kind) -> None:
    assert Asking(kind, good()).ask("predict_many", []) == []


@both
def test_pictures_are_all_there_before_the_first_is_sent(kind: Kind) -> None:
    def give() -> Iterator[bytes]:
        yield PICTURE
        yield PICTURE
        raise LookupError("the folder is empty")

    asking = Asking(kind, good())
    with pytest.raises(LookupError):
        asking.ask("predict_many", give())
    assert asking.requests == []
    gc.collect()  # would warn of coroutines that nobody awaited


@both
def test_what_is_no_picture_at_all_is_raised(kind: Kind) -> None:
    with pytest.raises(AttributeError):
        Asking(kind, good()).ask("predict_many", [object()])


def test_threads_run_beside_each_other_and_no_more_than_allowed() -> None:
    together = threading.Barrier(3, timeout=30)
    lock = threading.Lock()
    inside = most = 0

    def handle(_: httpx.Request) -> httpx.Response:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        together.wait()
        with lock:
            inside -= 1
        return good()

    with Client(URL, http=make_http(Client, handle), at_once=3) as client:
        assert len(client.predict_many([PICTURE] * 12)) == 12
    assert most == 3


@pytest.mark.anyio
async def test_tasks_run_beside_each_other_and_no_more_than_allowed() -> None:
    inside = most = 0

    async def handle(_: httpx.Request) -> httpx.Response:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.to_thread(threading.Event().wait, 0.05)  # time for others to come in
        inside -= 1
        return good()

    async with AsyncClient(URL, http=make_http(AsyncClient, handle), at_once=3) as client:
        assert len(await client.predict_many([PICTURE] * 12)) == 12
    assert most == 3
