"""What a service that means harm, or a broken proxy, answers to `Client` and `AsyncClient`."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import inspect
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import httpx
import pytest

import service.client as module
from service.client import AsyncClient, Client, NoAnswer, Result, UniheadError, UnreadableAnswer, make_printable

PICTURE = b"a picture"
GOOD: dict[str, Any] = {
    "model": {"name": "unihead", "version": "tiny"},
    "image": {"width": 3, "height": 2},
    "detections": [{"box": [0, 1, 2, 2], "label": "cat", "label_id": 15, "score": 0.5}],
    "classes": [{"label": "tench", "label_id": 0, "probability": 0.5}],
    "segments": [{"label": "cat", "label_id": 8, "pixels": 6, "fraction": 1.0}],
    "mask": {"encoding": "rle", "size": [2, 3], "segments": [{"label_id": 8, "counts": "06"}]},
    "timing_ms": {"total": 1.5},
}
BODY = json.dumps(GOOD).encode()
HEAD = b"HTTP/1.1 200 OK\r\n"
# Much more than any test takes; a client that waits for each byte would take as long as the drips last.
LATE_S = 5.0
NASTY = "\x1b]0;owned\x07\x1b[31mcat\x9b2J\r\nfake\u202e\u2028\ud800"
SHOWN = r"\x1b]0;owned\x07\x1b[31mcat\x9b2J\r\nfake\u202e\u2028\ud800"

# Without a list of authorities, which takes a quarter of a second to read.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
NO_HEADERS: Mapping[str, str] = MappingProxyType({})

Kind: TypeAlias = type[Client] | type[AsyncClient]
both = pytest.mark.parametrize("kind", [Client, AsyncClient])
Speak: TypeAlias = Callable[[socket.socket, threading.Event], None]


@contextlib.contextmanager
def serve(speak: Speak) -> Iterator[str]:
    """The address of a service that reads each request and then says what it wants, until the block ends."""
    ended = threading.Event()

    def handle(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(LATE_S)
            received = b""
            while PICTURE not in received and not received.startswith(b"GET"):
                received += connection.recv(65536)
            speak(connection, ended)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=handle, args=(listener.accept()[0],)).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)


def drip(beginning: bytes, drop: bytes) -> Speak:
    def speak(connection: socket.socket, ended: threading.Event) -> None:
        connection.sendall(beginning)
        while not ended.wait(0.02):
            connection.sendall(drop)

    return speak


def wait_for(answer: Any) -> Any:  # noqa: ANN401 - whatever it is
    return asyncio.run(answer) if inspect.iscoroutine(answer) else answer


def ask(kind: Kind, url: str, **options: Any) -> Result:  # noqa: ANN401 - the client's
    async def ask_async() -> Result:
        async with AsyncClient(url, http=httpx.AsyncClient(verify=NO_TLS), **options) as client:
            return await client.predict(PICTURE)

    if kind is AsyncClient:
        return asyncio.run(ask_async())
    with Client(url, http=httpx.Client(verify=NO_TLS), **options) as client:
        return client.predict(PICTURE)


def answer(
    kind: Kind, body: object, headers: Mapping[str, str] = NO_HEADERS, *, status: int = 200, method: str = "predict"
) -> Any:  # noqa: ANN401
    """What a client makes of an answer: bytes as they are, everything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=content, headers=[(k.encode(), v.encode()) for k, v in headers.items()])

    transport = httpx.MockTransport(handle)
    http: Any = httpx.Client(transport=transport) if kind is Client else httpx.AsyncClient(transport=transport)
    client = kind("http://unihead", http=http, retries=0)
    return wait_for(getattr(client, method)(*([PICTURE] if method == "predict" else [])))


# Time


@both
@pytest.mark.parametrize(
    ("beginning", "drop"),
    [
        (HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"", b"H"),
        (HEAD + b"X-Slow: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b""),
    ],
    ids=["body", "chunks", "status line", "header", "informational", "nothing"],
)
def test_a_deadline_holds_for_the_whole_call(kind: Kind, beginning: bytes, drop: bytes) -> None:
    with serve(drip(beginning, drop)) as url:
        started = time.monotonic()
        with pytest.raises(UniheadError) as caught:
            ask(kind, url, timeout_s=0.2, retries=9)
        took_s = time.monotonic() - started
    assert isinstance(caught.value, NoAnswer)
    assert took_s < LATE_S / 2


def test_who_waits_in_vain_leaves_no_thread_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GRACE_S", 0.0)
    before = set(threading.enumerate())
    with serve(drip(HEAD + b"Content-Length: 100000\r\n\r\n", b" ")) as url:
        with pytest.raises(NoAnswer):
            ask(Client, url, timeout_s=0.1, retries=0)
        left = [one for one in threading.enumerate() if one not in before and one.daemon]
        for thread in left:
            thread.join(LATE_S)
        assert not any(thread.is_alive() for thread in left)


def test_a_thread_that_asks_knows_the_callers_context() -> None:
    import contextvars  # noqa: PLC0415 - the point of this test alone

    span: contextvars.ContextVar[str] = contextvars.ContextVar("span")
    seen = []

    def handle(_: httpx.Request) -> httpx.Response:
        seen.append(span.get())
        return httpx.Response(200, json=GOOD)

    span.set("mine")
    Client("http://unihead", http=httpx.Client(transport=httpx.MockTransport(handle))).predict(PICTURE)
    assert seen == ["mine"]


# Bytes


@both
@pytest.mark.parametrize("status", [b"200 OK", b"503 No", b"400 No"])
def test_an_endless_answer_is_not_read_to_its_end(kind: Kind, status: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 100_000)
    sent = 0

    def speak(connection: socket.socket, ended: threading.Event) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\n\r\n")
        while not ended.is_set() and sent < 2**26:
            connection.sendall(b" " * 100_000)
            sent += 100_000

    with serve(speak) as url, pytest.raises(UnreadableAnswer, match="more than 100000 bytes"):
        ask(kind, url, timeout_s=30)
    assert sent < 2**25  # what the sockets hold


@both
@pytest.mark.parametrize("packing", ["gzip", "gzip, gzip", "br", "no such"])
def test_a_packed_answer_is_not_unpacked(kind: Kind, packing: str) -> None:
    body = gzip.compress(BODY)

    def speak(connection: socket.socket, _: threading.Event) -> None:
        length = f"Content-Encoding: {packing}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(HEAD + length.encode() + body)

    with serve(speak) as url, pytest.raises(UnreadableAnswer, match="packed"):
        ask(kind, url, timeout_s=30)


def test_packed_answers_are_not_asked_for() -> None:
    seen = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get_list("Accept-Encoding"))
        return httpx.Response(200, json=GOOD)

    Client("http://unihead", http=httpx.Client(transport=httpx.MockTransport(handle))).predict(PICTURE)
    assert seen == [["identity"]]


# Connections


@both
@pytest.mark.parametrize(
    "said",
    [
        HEAD + b"Content-Length: 100\r\n\r\nshort",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Content-Length: many\r\n\r\n",
        HEAD + b"no header\x1b[2J\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x1b[2J" * 100_000,
        b"",
    ],
    ids=["cut", "bad chunk", "bad length", "bad header", "no HTTP", "noise", "nothing"],
)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_connection_that_breaks_is_no_answer(kind: Kind, said: bytes, reset: bool) -> None:
    def speak(connection: socket.socket, _: threading.Event) -> None:
        connection.sendall(said)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serve(speak) as url, pytest.raises(NoAnswer) as caught:
        ask(kind, url, timeout_s=30, retries=0)
    assert "\x1b" not in str(caught.value)


@both
def test_a_redirect_is_not_followed(kind: Kind) -> None:
    with pytest.raises(UniheadError, match="answers 302") as caught:
        answer(kind, {}, {"Location": "http://127.0.0.1:1/evil"}, status=302)
    assert caught.value.status == 302


@both
@pytest.mark.parametrize(
    "url", [f"http://{'a' * 100}", f"http://{'a.' * 200}example", "http://exa mple", "http://x:99999"]
)
def test_an_address_that_nobody_can_have_is_no_answer(kind: Kind, url: str) -> None:
    with pytest.raises((NoAnswer, ValueError)) as caught:
        ask(kind, url, timeout_s=5, retries=0)
    assert not isinstance(caught.value, UnicodeError)


# Words


def changed_each(path: str, *values: object) -> list[bytes]:
    return [changed(path, value) for value in values]


def changed(path: str, value: object) -> bytes:
    """A good answer with one value in the place of another; floats that JSON does not have among them."""
    said = json.loads(BODY)
    *parents, last = [int(step) if step.isdecimal() else step for step in path.split("/")]
    inner = said
    for step in parents:
        inner = inner[step]
    inner[last] = value
    return json.dumps(said).encode()


WRONG = [
    b"",
    b"hello",
    b"<html>",
    b"\xff\xfe",
    b"[]",
    b"3",
    b"null",
    b'"text"',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"[" * 900 + b"]" * 900,
    b"1" * 10_000,
    b'{"image": ' + b"[" * 900 + b"]" * 900 + b"}",
    *changed_each("image/width", -1, "3", None, 2.5, 10**30, 10**400, True, [], float("nan")),
    changed("image", {}),
    changed("image", []),
    *changed_each("detections/0/box", [1], [1, 2, 3, 4, 5], "abcd", [[1]] * 4, {}, None, [9, 9, 99, 9]),
    *changed_each("detections/0/box/0", "1", None, float("inf"), float("nan"), -5, 10**400, {}),
    *changed_each("detections/0/label", 1, None, ["cat"], {}),
    *changed_each("detections/0/label_id", "1", None, 1.5, -1, 10**30),
    *changed_each("detections/0/score", "1", None, [], float("inf"), 10**400),
    changed("detections", {"box": 1}),
    changed("detections", [3]),
    changed("detections", "cat"),
    changed("classes/0/probability", "much"),
    changed("segments/0/pixels", 1.5),
    changed("model", []),
    changed("model", {"name": 1, "version": 2}),
    changed("model/version", None),
    changed("timing_ms", []),
    changed("timing_ms/total", "1"),
    changed("timing_ms/total", float("nan")),
    changed("mask", [1]),
    changed("mask/size", [3, 2]),
    changed("mask/size", [1_000_000, 1_000_000]),
    changed("mask/size", ["2", "3"]),
    changed("mask/segments", []),
    changed("mask/segments", {}),
    changed("mask/segments", None),
    *changed_each("mask/segments/0/label_id", 256, -1, 10**30, "8", 1.5, None),
    *changed_each("mask/segments/0/counts", "", "0", "05", "07", "0PPPPPPP0", "\u0100", "O", 6, None),
    changed("mask/segments", [{"label_id": 8, "counts": "06"}] * 2),
    changed("mask/segments", [{"label_id": 8, "counts": "0ooooooooooooooooN"}]),
]


@both
@pytest.mark.parametrize("body", WRONG, ids=range(len(WRONG)))
def test_an_answer_that_is_none_is_one_error(kind: Kind, body: bytes) -> None:
    with pytest.raises(UnreadableAnswer) as caught:
        answer(kind, body)
    assert (caught.value.code, caught.value.status) == ("unreadable_answer", 200)
    assert len(str(caught.value)) < 3000


@both
def test_a_picture_of_more_pixels_than_any_camera_has_is_not_unfolded(kind: Kind) -> None:
    said = {**GOOD, "image": {"width": 10**6, "height": 10**6}, "detections": []}
    mask = {"encoding": "rle", "size": [10**6, 10**6], "segments": [{"label_id": 1, "counts": "0PPPPPPP0"}]}
    with pytest.raises(UnreadableAnswer, match="pixels"):
        answer(kind, {**said, "mask": mask})


@both
@pytest.mark.parametrize("body", [b"hello", b"[]", b"3", b"[" * 100_000, b"\xff", b""])
def test_what_runs_there_is_told_as_an_object_or_not_at_all(kind: Kind, body: bytes) -> None:
    with pytest.raises(UnreadableAnswer):
        answer(kind, body, method="info")


@both
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"detail": ' + b"[" * 900 + b"]" * 900 + b"}",
        [1, 2, 3],
        {"detail": ["a"] * 3, "code": 5},
        {"detail": {"a": [None]}, "code": ["overloaded"]},
        {"detail": None, "code": None},
        {"detail": "x" * 10**6, "code": "y" * 10**6},
        b"1" * 10_000,
        b"\xff\xff",
    ],
    ids=range(9),
)
@pytest.mark.parametrize("after", ["9" * 400, "-1", "nan", "1e999", "\u0663", ""])
def test_a_problem_of_any_shape_is_an_error(kind: Kind, body: object, after: str) -> None:
    with pytest.raises(UniheadError) as caught:
        answer(kind, body, {"Retry-After": after}, status=503)
    assert caught.value.status == 503
    assert len(str(caught.value)) <= 2000


# Text


@both
def test_text_of_an_answer_does_nothing_to_a_terminal(kind: Kind) -> None:
    said = {
        **GOOD,
        "detections": [{**GOOD["detections"][0], "label": NASTY}],
        "classes": [{**GOOD["classes"][0], "label": NASTY}],
        "segments": [{**GOOD["segments"][0], "label": NASTY}],
        "model": {"name": NASTY, "version": NASTY},
        "timing_ms": {NASTY: 1},
    }
    result = answer(kind, said, {"X-Request-ID": "r\x9b1", "X-Unihead-Cache": "hit\x9b"})
    assert isinstance(result, Result)
    labels = [one["label"] for part in ("detections", "classes", "segments") for one in result.to_dict()[part]]
    assert labels == [SHOWN] * 3
    assert (dict(result.model), list(result.timing_ms)) == ({"name": SHOWN, "version": SHOWN}, [SHOWN])
    assert (result.request_id, result.cache) == (r"r\x9b1", r"hit\x9b")


@both
def test_text_of_an_error_does_nothing_to_a_terminal(kind: Kind) -> None:
    with pytest.raises(UniheadError) as caught:
        answer(kind, {"code": NASTY, "detail": NASTY}, {"X-Request-ID": "r\x9b1"}, status=422)
    error = caught.value
    assert (str(error), error.detail, error.code, error.request_id) == (SHOWN, SHOWN, SHOWN, r"r\x9b1")


@pytest.mark.parametrize("text", ["Käfer", "猫 \u3000 ねこ", "a\u00a0b", "no\\escape", "\U0001f408", ""])
def test_text_that_a_terminal_only_shows_stays_as_it_is(text: str) -> None:
    assert make_printable(text) == text


# Many


@both
@pytest.mark.parametrize("bad", [b"hello", b"[" * 100_000, changed("mask/segments/0/label_id", 10**30)])
def test_one_bad_answer_does_not_lose_the_others(kind: Kind, bad: bytes) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=bad if request.content == b"3" else BODY)

    transport = httpx.MockTransport(handle)
    http: Any = httpx.Client(transport=transport) if kind is Client else httpx.AsyncClient(transport=transport)
    client = kind("http://unihead", http=http)
    answers = wait_for(client.predict_many([str(number).encode() for number in range(6)]))
    assert [type(one) for one in answers] == [*[Result] * 3, UnreadableAnswer, *[Result] * 2]
