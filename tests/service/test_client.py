from __future__ import annotations

import asyncio
import base64
import http.server
import io
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from PIL import Image

import service.client as module
from service import errors
from service.answers.masks import encode_rle
from service.app import create_app
from service.client import (
    AsyncClient,
    Client,
    Detection,
    NoAnswer,
    Options,
    Picture,
    Result,
    UniheadError,
    read_rle,
    write_png,
)
from service.commands.spawn import spawn_service
from service.engine.engine import Engine
from service.settings import Settings
from tests.service.fakes import FakeSession, encode, make_contract, make_picture, write_keys
from tests.service.harness import GatedSession

PIXELS = make_picture()
PICTURE = encode(PIXELS)
URL = "http://unihead"
ANSWER = {
    "model": {"name": "unihead", "version": "tiny"},
    "image": {"width": 3, "height": 2},
    "detections": [{"box": [0, 1, 2, 2], "label": "cat", "label_id": 15, "score": 0.5}],
    "timing_ms": {"total": 1.5},
}
# Alone in an environment with httpx, what it needs, and numpy.
ALONE = """
import sys

HTTPX = {"httpx", "httpcore", "h11", "anyio", "sniffio", "idna", "certifi", "typing_extensions"}


class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in sys.stdlib_module_names | HTTPX | {"numpy", "client"}:
            raise ModuleNotFoundError(f"no {name} here")


sys.meta_path.insert(0, Wall())
sys.path.insert(0, sys.argv[1])
import client

with client.Client(sys.argv[2]) as asking:
    result = asking.predict(sys.argv[3])
print(client.__file__, result.detections[0].label, result.mask.shape)
try:
    result.save("overlay.png")
except ModuleNotFoundError:
    print("no Pillow")
"""


@pytest.fixture(scope="module")
def url(tiny_model: Path) -> Iterator[str]:
    with spawn_service(["--model", str(tiny_model), "--threads", "1", "--log-level", "error"]) as service:
        yield f"http://{service.host}:{service.port}"


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    with Client(url) as connected:
        yield connected


def reach(app: FastAPI, **options: Any) -> AsyncClient:  # noqa: ANN401 - AsyncClient's
    return AsyncClient(URL, http=httpx.AsyncClient(transport=httpx.ASGITransport(app)), **options)


def answer_with(*answers: httpx.Response | Exception, **options: Any) -> tuple[Client, list[httpx.Request]]:  # noqa: ANN401 - Client's
    """A client of a service that answers so, one time after another, and the requests that come."""
    requests: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        answer = answers[min(len(requests), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Client(URL, http=httpx.Client(transport=httpx.MockTransport(handle)), **options), requests


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    said = {"code": code, "detail": f"it is {code}", "request_id": "r1"}
    return httpx.Response(status, json=said, headers={"X-Request-ID": "r1", **headers})


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that are made, which take no time."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


# A picture and its answer


def test_one_line_gives_a_label(url: str, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(PICTURE)
    with Client(url) as client:
        assert client.predict(str(tmp_path / "photo.png")).detections[0].label == "bicycle"


def test_every_kind_of_picture_gives_the_same_answer(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(PICTURE)
    kinds: list[Picture] = [PICTURE, str(path), path, io.BytesIO(PICTURE), PIXELS, Image.fromarray(PIXELS)]
    results = [client.predict(picture) for picture in kinds]
    for result in results:
        assert result.detections == results[0].detections
        assert result.classes == results[0].classes
        assert (result.width, result.height) == (48, 32)
    assert results[0].picture == PICTURE


def test_a_result_holds_everything_that_the_service_says(client: Client) -> None:
    result = assert_type(client.predict(PICTURE), Result)
    said = httpx.post(f"{client._url}/predict", content=PICTURE).json()
    assert [one.label for one in result.detections] == [one["label"] for one in said["detections"]]
    assert result.detections[0] == Detection((6.0, 6.1, 30.0, 18.29), "bicycle", 1, 0.9)
    assert [(one.label, one.probability) for one in result.classes] == [
        (one["label"], one["probability"]) for one in said["classes"]
    ]
    assert [(one.label_id, one.pixels, one.fraction) for one in result.segments] == [
        (one["label_id"], one["pixels"], one["fraction"]) for one in said["segments"]
    ]
    assert result.mask is not None
    assert result.mask.dtype == np.uint8
    assert result.mask.flags.c_contiguous
    png = Image.open(io.BytesIO(base64.b64decode(said["mask"]["data"])))
    np.testing.assert_array_equal(result.mask, np.asarray(png))
    assert {one.label_id: one.pixels for one in result.segments} == {
        int(one): int((result.mask == one).sum()) for one in np.unique(result.mask)
    }
    assert result.model == {"name": "unihead", "version": "tiny-0123456789ab"}
    assert result.timing_ms["total"] > 0
    assert result.cache in {"miss", "hit"}
    assert len(result.request_id) == 16


def test_what_is_not_asked_for_is_empty(client: Client) -> None:
    assert (client.detect(PICTURE).mask, client.detect(PICTURE).classes) == (None, ())
    assert len(client.classify(PICTURE, top_k=2).classes) == 2
    assert client.segment(PICTURE).mask is not None
    without = client.segment(PICTURE, mask=False)
    assert (without.mask, len(without.segments)) == (None, 2)


def test_options_reach_the_service(client: Client) -> None:
    assert len(client.detect(PICTURE, score_threshold=0.7).detections) == 1
    assert len(client.detect(PICTURE, max_detections=1).detections) == 1
    for tasks in ("detect,classify", ("detect", "classify"), ["classify", "detect"]):
        result = client.predict(PICTURE, tasks=tasks)
        assert (len(result.detections), len(result.classes), result.segments, result.mask) == (2, 3, (), None)


def test_a_result_is_plain_data(client: Client) -> None:
    result = client.predict(PICTURE)
    told = json.loads(json.dumps(result.to_dict()))
    assert set(told) == set(Result.__slots__) - {"mask", "picture"}
    assert told["detections"][0] == {"box": [6.0, 6.1, 30.0, 18.29], "label": "bicycle", "label_id": 1, "score": 0.9}
    assert "array" not in repr(result)
    with pytest.raises(AttributeError):
        result.width = 1  # type: ignore[misc]  # the point: results are frozen


def test_info_and_ready(client: Client) -> None:
    assert client.info()["model"]["version"] == "tiny-0123456789ab"
    assert client.ready()
    with Client("http://127.0.0.1:1") as nobody:
        assert not nobody.ready()


def test_many_pictures_come_back_in_order_with_what_went_wrong_in_place(client: Client, tmp_path: Path) -> None:
    pictures = [encode(make_picture(width, 20)) for width in range(20, 40)]
    answers = client.predict_many([*pictures, b"no picture", tmp_path / "missing.jpg", np.zeros((3, 3), np.uint8)])
    assert [one.width for one in answers if isinstance(one, Result)] == list(range(20, 40))
    assert [type(one).__name__ for one in answers[20:]] == ["UnsupportedImage", "FileNotFoundError", "ValueError"]


def test_connections_are_kept() -> None:
    connections = 0

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            nonlocal connections
            connections += 1
            super().setup()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps(ANSWER).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        with Client(f"http://127.0.0.1:{server.server_port}") as client:
            for _ in range(5):
                client.predict(PICTURE)
        server.shutdown()
    assert connections == 1


# Drawn


def test_an_overlay_shows_mask_and_boxes(tmp_path: Path) -> None:
    black = np.zeros((40, 60, 3), np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    mask[30:, :] = 3
    result = make_result(encode(black), mask, Detection((5, 5, 25, 20), "cat", 15, 0.5))
    drawn = np.asarray(result.overlay())
    assert drawn.shape == black.shape
    assert drawn[35, 30].max() > 100
    assert drawn[2, 50].max() == 0
    assert (drawn[5, 10] == 255).all()
    result.save(tmp_path / "overlay.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "overlay.png")), drawn)


def test_an_overlay_lies_on_the_upright_picture() -> None:
    turned = Image.new("RGB", (60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    result = make_result(encode(turned, "JPEG", exif=exif), np.ones((60, 40), np.uint8))
    assert result.overlay().size == (40, 60)


def make_result(picture: bytes, mask: np.ndarray[Any, np.dtype[np.uint8]], *detections: Detection) -> Result:
    height, width = mask.shape
    return Result(width, height, detections, (), (), mask, {}, {}, "miss", "r1", picture)


# Errors


def leaves(tree: type[Exception]) -> Iterator[type[Exception]]:
    kinds = tree.__subclasses__()
    for kind in kinds:
        yield from leaves(kind)
    if not kinds:
        yield tree


TOLD = [kind for kind in leaves(errors.UniheadError) if hasattr(kind, "code") and "tests" not in kind.__module__]


@pytest.mark.parametrize("kind", TOLD)
def test_every_problem_of_the_service_is_an_error_of_that_name(kind: type[errors.RequestError]) -> None:
    client, _ = answer_with(problem(kind.status, kind.code), retries=0)
    with pytest.raises(UniheadError) as caught:
        client.predict(PICTURE)
    error = caught.value
    assert (type(error).__name__, error.code) == (kind.__name__, kind.code)
    assert [base.__name__ for base in type(error).__mro__] == [base.__name__ for base in kind.__mro__]
    assert (error.status, error.detail, str(error)) == (kind.status, f"it is {kind.code}", f"it is {kind.code}")
    assert (error.request_id, error.retry_after_s) == ("r1", None)


def test_there_are_problems_to_tell() -> None:
    assert len(TOLD) > 10


def test_a_break_in_the_service_is_an_internal_error(pauses: list[float]) -> None:
    client, requests = answer_with(problem(500, "internal_error"))
    with pytest.raises(module.InternalError):
        client.predict(PICTURE)
    assert (len(requests), pauses) == (1, [])


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(502, text="<html>bad gateway</html>"), httpx.Response(404, json=["x"]), problem(418, "new")],
)
def test_what_others_answer_is_an_error_too(answer: httpx.Response) -> None:
    client, _ = answer_with(answer)
    with pytest.raises(UniheadError) as caught:
        client.predict(PICTURE)
    assert type(caught.value) is UniheadError
    assert caught.value.status == answer.status_code
    assert str(caught.value).endswith((str(answer.status_code), "new"))


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="hello"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"image": {}}),
        httpx.Response(200, json={**ANSWER, "detections": [{"box": [1]}]}),
        httpx.Response(200, json={**ANSWER, "mask": {"size": [2, 2], "segments": []}}),
        httpx.Response(
            200,
            json={**ANSWER, "mask": {"encoding": "rle", "size": [2, 2], "segments": [{"label_id": 1, "counts": "05"}]}},
        ),
    ],
)
def test_an_answer_that_is_none_is_told_apart(answer: httpx.Response) -> None:
    client, _ = answer_with(answer)
    with pytest.raises(module.UnreadableAnswer):
        client.predict(PICTURE)


def test_fields_of_a_newer_service_are_no_trouble() -> None:
    newer = {**ANSWER, "image": {"width": 3, "height": 2, "depth": 8}, "pose": []}
    client, _ = answer_with(httpx.Response(200, json=newer))
    assert client.predict(PICTURE).detections == (Detection((0, 1, 2, 2), "cat", 15, 0.5),)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no address of a service"):
        Client(url)


def test_a_real_service_says_what_is_wrong(client: Client) -> None:
    with pytest.raises(module.EmptyBody):
        client.predict(b"")
    with pytest.raises(module.UnsupportedImage, match="JPEG, PNG or WebP"):
        client.predict(b"hello")
    with pytest.raises(module.DamagedImage):
        client.predict(PICTURE[:60])
    with pytest.raises(module.InvalidParameter, match="knows max_detections, score_threshold"):
        client.detect(PICTURE, top_k=3)
    with pytest.raises(FileNotFoundError):
        client.predict("missing.jpg")


# Another try


def test_a_service_without_time_is_asked_again_when_it_says(pauses: list[float]) -> None:
    busy = problem(503, "overloaded", **{"Retry-After": "2"})
    client, requests = answer_with(busy, busy, httpx.Response(200, json=ANSWER))
    assert client.predict(PICTURE).width == 3
    assert len({request.content for request in requests}) == 1
    assert len(requests) == 3
    assert len(pauses) == 2
    assert all(2 < pause < 2.3 for pause in pauses)


def test_a_connection_that_breaks_is_made_again(pauses: list[float]) -> None:
    client, requests = answer_with(httpx.ConnectError("refused"), httpx.ReadError(""), httpx.Response(200, json=ANSWER))
    assert client.predict(PICTURE).width == 3
    assert (len(requests), len(pauses)) == (3, 2)


def test_tries_end(pauses: list[float]) -> None:
    client, requests = answer_with(httpx.ConnectError("refused"), retries=4)
    with pytest.raises(NoAnswer, match="http://unihead does not answer: refused") as caught:
        client.predict(PICTURE)
    assert (len(requests), len(pauses)) == (5, 4)
    assert isinstance(caught.value.__cause__, httpx.ConnectError)
    assert (caught.value.status, caught.value.code) == (0, "no_answer")


@pytest.mark.parametrize("status", [400, 401, 404, 408, 413, 415, 422, 429, 500])
def test_what_would_fail_again_is_not_tried_again(pauses: list[float], status: int) -> None:
    client, requests = answer_with(problem(status, "x", **{"Retry-After": "1"}))
    with pytest.raises(UniheadError):
        client.predict(PICTURE)
    assert (len(requests), pauses) == (1, [])


def test_waiting_beyond_the_deadline_is_not_begun(pauses: list[float]) -> None:
    client, requests = answer_with(problem(503, "overloaded", **{"Retry-After": "11"}), timeout_s=10)
    with pytest.raises(module.Overloaded) as caught:
        client.predict(PICTURE)
    assert (len(requests), pauses, caught.value.retry_after_s) == (1, [], 11)


def test_each_try_says_how_much_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    client, requests = answer_with(problem(503, "not_ready", **{"Retry-After": "3"}), timeout_s=8, retries=9)
    with pytest.raises(module.NotReady):
        client.predict(PICTURE)
    left = [int(request.headers["X-Request-Timeout-Ms"]) for request in requests]
    assert len(left) == 3
    assert left[0] == 8000
    assert 4700 < left[1] < 5000
    assert 1400 < left[2] < 2000
    assert now < 108
    assert requests[0].extensions["timeout"]["read"] == pytest.approx(8.25)


def test_more_time_than_the_service_gives_is_not_asked_for() -> None:
    client, requests = answer_with(httpx.Response(200, json=ANSWER), timeout_s=10_000)
    client.predict(PICTURE)
    assert requests[0].headers["X-Request-Timeout-Ms"] == "600000"


def test_pauses_grow_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[list[float]] = []

    def sleep(seconds: float) -> None:
        runs[-1].append(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    client, _ = answer_with(httpx.ConnectError("refused"), retries=8, timeout_s=60)
    for _ in range(20):
        runs.append([])
        with pytest.raises(NoAnswer):
            client.predict(PICTURE)
    longest = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    for most, pauses in zip(longest, zip(*runs, strict=True), strict=True):
        assert len(set(pauses)) > 10
        assert all(most / 2 <= pause <= most for pause in pauses)


def test_a_date_in_retry_after_is_no_number(pauses: list[float]) -> None:
    late = problem(503, "overloaded", **{"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"})
    client, _ = answer_with(late, httpx.Response(200, json=ANSWER))
    assert client.predict(PICTURE).width == 3
    assert pauses[0] < 1


def test_a_key_is_brought_and_not_shown(pauses: list[float]) -> None:
    del pauses
    client, requests = answer_with(httpx.Response(200, json=ANSWER), key="uh_secret")
    client.predict(PICTURE)
    assert requests[0].headers["Authorization"] == "Bearer uh_secret"
    assert "uh_secret" not in repr(client)
    client, requests = answer_with(httpx.Response(200, json=ANSWER))
    client.predict(PICTURE)
    assert "Authorization" not in requests[0].headers


# Awaited


@pytest.mark.anyio
async def test_the_async_client_answers_like_the_other_one(app: FastAPI) -> None:
    async with app.router.lifespan_context(app), reach(app) as client:
        assert await client.ready()
        assert (await client.info())["model"]["version"] == "tiny-0123456789ab"
        result = assert_type(await client.predict(PIXELS), Result)
        assert result.detections[0].label == "bicycle"
        assert result.mask is not None
        assert (await client.segment(PICTURE)).mask is not None
        assert len((await client.detect(PICTURE)).detections) == 2
        assert len((await client.classify(PICTURE, top_k=1)).classes) == 1
        with pytest.raises(module.UnsupportedImage):
            await client.predict(b"hello")
        answers = await client.predict_many([PICTURE, b"hello", "missing.jpg"])
        assert [type(one).__name__ for one in answers] == ["Result", "UnsupportedImage", "FileNotFoundError"]


@pytest.mark.anyio
async def test_the_right_key_opens_and_another_does_not(settings: Settings, tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys", phone="uh_right")
    guarded = settings.model_copy(update={"auth": "keys", "keys": keys})
    app = create_app(guarded, Engine(FakeSession(), make_contract(), sha256="c0ffee"))
    async with app.router.lifespan_context(app):
        async with reach(app, key="uh_right") as client:
            assert (await client.predict(PICTURE)).detections
        async with reach(app, key="uh_wrong") as client:
            with pytest.raises(module.Unauthorized):
                await client.predict(PICTURE)


@pytest.mark.anyio
async def test_a_service_that_is_late_says_so_itself(settings: Settings) -> None:
    session = GatedSession()
    app = create_app(settings, Engine(session, make_contract(), sha256="c0ffee"))
    async with app.router.lifespan_context(app), reach(app, timeout_s=0.2) as client:
        session.gate.clear()
        try:
            with pytest.raises(module.DeadlineExceeded):
                await client.predict(PICTURE)
        finally:
            session.gate.set()


@pytest.mark.anyio
async def test_no_more_are_asked_at_once_than_allowed() -> None:
    inside = most = 0

    async def handle(_: httpx.Request) -> httpx.Response:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.001)
        inside -= 1
        return httpx.Response(200, json=ANSWER)

    http = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    async with AsyncClient(URL, http=http, at_once=3) as client:
        assert len(await client.predict_many([PICTURE] * 20)) == 20
    assert most == 3


@pytest.mark.anyio
async def test_the_async_client_tries_again() -> None:
    answers: Iterator[httpx.Response | Exception] = iter(
        [httpx.ConnectError("refused"), problem(503, "overloaded"), httpx.Response(200, json=ANSWER)]
    )

    def handle(_: httpx.Request) -> httpx.Response:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with AsyncClient(URL, http=httpx.AsyncClient(transport=httpx.MockTransport(handle))) as client:
        assert (await client.predict(PICTURE)).width == 3


# Bytes


@given_settings(deadline=None)
@given(
    st.integers(1, 40).flatmap(
        lambda width: st.lists(st.lists(st.integers(0, 255), min_size=width, max_size=width), min_size=1, max_size=40)
    )
)
def test_run_lengths_come_back_as_they_were(rows: list[list[int]]) -> None:
    mask = np.array(rows, dtype=np.uint8)
    segments = [{"label_id": one, "counts": counts} for one, counts in encode_rle(mask).items()]
    np.testing.assert_array_equal(read_rle(mask.shape, segments), mask)


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (600, 800)])
def test_run_lengths_of_large_pieces_come_back(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, np.uint8)
    mask[shape[0] // 3 :, : shape[1] // 2 + 1] = 7
    segments = [{"label_id": one, "counts": counts} for one, counts in encode_rle(mask).items()]
    np.testing.assert_array_equal(read_rle(shape, segments), mask)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_pillow_reads_the_png_that_is_written(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(write_png(pixels)))), pixels)


def test_an_array_that_is_a_view_is_written_as_it_looks() -> None:
    turned = PIXELS[::-1, ::2]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(write_png(turned)))), turned)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_an_array_that_is_no_picture_is_refused(pixels: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ValueError, match="is no picture"):
        write_png(pixels)


# Alone


def test_the_file_works_where_it_is_copied_to_alone(url: str, tmp_path: Path) -> None:
    shutil.copy(module.__file__, tmp_path / "client.py")
    (tmp_path / "photo.png").write_bytes(PICTURE)
    command = [sys.executable, "-I", "-W", "error", "-c", ALONE, str(tmp_path), url, "photo.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == [f"{tmp_path / 'client.py'} bicycle (32, 48)", "no Pillow"]


def test_options_are_those_of_the_service() -> None:
    from service.api.parameters import PredictQuery  # noqa: PLC0415 - beside what it is compared with

    assert set(Options.__annotations__) == set(PredictQuery.model_fields)
