"""Ask a unihead service from Python: `Client("http://127.0.0.1:8000").predict("photo.jpg").detections[0].label`.

Needs httpx and numpy, and Pillow to draw; works where this file is copied to alone.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import random
import re
import struct
import time
import urllib.parse
import zlib
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Generic, Protocol, Self, TypeAlias, TypedDict, TypeVar, Unpack, cast

import httpx
import numpy as np
from numpy.typing import NDArray

TIMEOUT_HEADER = "X-Request-Timeout-Ms"
_MAX_TIMEOUT_MS, _GRACE_S = 600_000, 0.25
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0

T = TypeVar("T")
HttpT = TypeVar("HttpT", httpx.Client, httpx.AsyncClient)
ResultT = TypeVar("ResultT")
ManyT = TypeVar("ManyT")
InfoT = TypeVar("InfoT")
ReadyT = TypeVar("ReadyT")


class UniheadError(Exception):
    """A picture was not answered; `code` and `detail` are the service's words, `status` 0 if there was no answer."""

    code: str = ""

    def __init__(
        self, detail: str, *, status: int = 0, code: str = "", request_id: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(detail)
        self.detail, self.status, self.code = detail, status, code or self.code
        self.request_id, self.retry_after_s = request_id, retry_after_s

    def __init_subclass__(cls) -> None:
        """Take the code from the name: EmptyBody is empty_body."""
        cls.code = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


# As in service/errors.py; a line a kind.
# ruff: noqa: E701 - so that the tree fits on a screen
# fmt: off
class NoAnswer(UniheadError): """The service cannot be reached, hung up, or did not answer in time."""
class UnreadableAnswer(UniheadError): """What answered is no unihead service, or a newer one."""
class InternalError(UniheadError): """Something broke in the service; its log has more under the request id."""
class ModelOutputInvalid(UniheadError): """The model gave no valid answer about this picture."""
class RequestError(UniheadError): """The request cannot be answered, and you can mend it."""
class EmptyBody(RequestError): """The request carried no picture."""
class MalformedRequest(RequestError): """The body could not be read as what it says it is."""
class Unauthorized(RequestError): """The service wants a key, and another than this one."""
class UnknownModel(RequestError): """A model is asked for that is not served there."""
class RequestTimeout(RequestError): """The picture did not come to the service in time."""
class BodyTooLarge(RequestError): """The picture has more bytes than the service takes."""
class TooManyPixels(RequestError): """The picture has more pixels than the service takes."""
class UnsupportedImage(RequestError): """It is neither JPEG, PNG nor WebP."""
class DamagedImage(RequestError): """The picture begins well and cannot be decoded."""
class PictureTooCostly(RequestError): """The picture's scans, frames or shape would cost too much."""
class InvalidParameter(RequestError): """An option is unknown or out of its range."""
class HeaderTooLarge(RequestError): """The request line and header have more bytes than the service takes."""
class Unavailable(UniheadError): """The request is right and cannot be answered now; trying again later helps."""
class NotReady(Unavailable): """The service has no model loaded yet, or has stopped."""
class Draining(Unavailable): """The service is about to stop."""
class Overloaded(Unavailable): """More pictures came than can be answered in time."""
class DeadlineExceeded(Unavailable): """The picture was taken and not answered in time."""
# fmt: on
_KINDS = {kind.code: kind for base in (UniheadError, RequestError, Unavailable) for kind in base.__subclasses__()}


@dataclass(frozen=True, slots=True)
class Detection:
    """One object found; `box` is x1, y1, x2, y2 in pixels of the upright picture, `score` 0..1."""

    box: tuple[float, float, float, float]
    label: str
    label_id: int
    score: float


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How probable one class is for the whole picture; 0..1."""

    label: str
    label_id: int
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """How much of the picture one class covers; `label_id` is the value of its pixels in the mask."""

    label: str
    label_id: int
    pixels: int
    fraction: float


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What the service says about one picture, best and largest first; parts not asked for are empty, the mask None.

    `width` and `height` are those of the upright picture, `mask` is [height, width] class ids, `model` has a name and
    version, `timing_ms` the service's stages, `cache` is hit, coalesced, miss or bypass, `picture` the bytes sent.
    """

    width: int
    height: int
    detections: tuple[Detection, ...]
    classes: tuple[ClassScore, ...]
    segments: tuple[Segment, ...]
    mask: NDArray[np.uint8] | None = field(repr=False)
    model: Mapping[str, str]
    timing_ms: Mapping[str, float]
    cache: str
    request_id: str
    picture: bytes = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Everything that JSON holds well: all but mask and picture."""
        return {name: value for name, value in asdict(self).items() if name not in {"mask", "picture"}}

    def overlay(self, opacity: float = 0.5) -> Any:  # noqa: ANN401 - a PIL.Image.Image, where Pillow is installed
        """Draw mask and boxes over the picture; needs Pillow, and gives a `PIL.Image.Image`."""
        from PIL import Image, ImageDraw, ImageOps  # noqa: PLC0415 - optional

        picture = ImageOps.exif_transpose(Image.open(io.BytesIO(self.picture))).convert("RGB")
        if self.mask is not None:
            # Steps of the golden ratio keep the classes that are there far apart on the colour wheel; 0 stays clear.
            order = np.cumsum(np.bincount(self.mask.ravel(), minlength=256) > 0)
            hues = Image.fromarray((order * 158 % 256).astype(np.uint8)[None])
            colours = np.asarray(Image.merge("HSV", (hues, *[Image.new("L", hues.size, 255)] * 2)).convert("RGB"))[0]
            tint = Image.fromarray(colours[self.mask])
            picture.paste(tint, mask=Image.fromarray(np.where(self.mask, round(255 * opacity), 0).astype(np.uint8)))
        draw, width = ImageDraw.Draw(picture), max(2, min(picture.size) // 200)
        for one in reversed(self.detections):
            draw.rectangle(one.box, outline="white", width=width)
            place, text = (one.box[0] + 2 * width, one.box[1] + width), f"{one.label} {one.score:.0%}"
            draw.text(place, text, "white", stroke_width=2, stroke_fill="black", font_size=max(12, 6 * width))
        return picture

    def show(self) -> None:
        """Open the overlay in the system's viewer; needs Pillow."""
        self.overlay().show()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the overlay to a file; needs Pillow."""
        self.overlay().save(path)


class _Savable(Protocol):  # PIL.Image.Image
    def save(self, fp: Any, format: str | None = None, **params: Any) -> None: ...  # noqa: A002, ANN401 - Pillow's


Picture: TypeAlias = bytes | str | os.PathLike[str] | NDArray[np.uint8] | IO[bytes] | _Savable
Answer: TypeAlias = Result | UniheadError | OSError | ValueError


class Options(TypedDict, total=False):
    """What may be asked for; the service says what each is for, and refuses what a path does not know."""

    tasks: str | Sequence[str]
    score_threshold: float
    max_detections: int
    top_k: int
    mask: bool


def read_picture(picture: Picture) -> bytes:
    """Bytes to send: a file as it is, an array [H, W, 3] of RGB uint8 or a Pillow picture as PNG."""
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str | os.PathLike):
        return Path(picture).read_bytes()
    if isinstance(picture, np.ndarray):
        return write_png(picture)
    if hasattr(picture, "save"):
        file = io.BytesIO()
        picture.save(file, "PNG", compress_level=1)
        return file.getvalue()
    return picture.read()


def write_png(pixels: NDArray[np.uint8]) -> bytes:
    """Write [H, W, 3] RGB uint8 as a PNG (ISO/IEC 15948), each byte as its difference to the pixel on its left."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:  # noqa: PLR2004 - RGB
        raise ValueError(f"an array of {pixels.dtype}, {pixels.shape}, is no picture: it takes uint8, [H, W, 3]")
    height, width, _ = pixels.shape
    rows = np.concatenate([np.ones((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    rows[:, 4:] -= pixels[:, :-1].reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (b"IHDR" + header, b"IDAT" + zlib.compress(rows.tobytes(), 1), b"IEND")
    ends = [struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(ends)


def read_rle(size: Sequence[int], segments: Iterable[Mapping[str, Any]]) -> NDArray[np.uint8]:
    """Put COCO's compressed run lengths of all classes together as class ids of `size`, [H, W]."""
    runs = []
    for segment in segments:
        codes = np.frombuffer(segment["counts"].encode("ascii"), np.uint8).astype(np.int64) - 48
        starts = np.concatenate(([0], np.flatnonzero((codes & 32) == 0)[:-1] + 1))
        places = np.arange(len(codes)) - np.repeat(starts, np.diff(starts, append=len(codes)))
        counts = np.add.reduceat((codes & 31) << (5 * places), starts)
        last = np.append(starts[1:], len(codes)) - 1
        counts -= np.where(codes[last] & 16, 1 << (5 * places[last] + 5), 0)  # negative
        counts[1::2] = counts[1::2].cumsum()  # from the fourth on they are differences to the one before the last
        counts[2::2] = counts[2::2].cumsum()
        inside = counts[1::2]
        runs.append(np.stack([counts.cumsum()[1::2] - inside, inside, np.full(len(inside), segment["label_id"])]))
    begins, lengths, class_ids = np.concatenate(runs, axis=1)
    order = begins.argsort()
    flat = np.repeat(class_ids[order].astype(np.uint8), lengths[order])
    return np.ascontiguousarray(flat.reshape(size[::-1]).T)


def read_result(response: httpx.Response, picture: bytes) -> Result:
    """Read an answer about a picture; UnreadableAnswer if it is none."""
    try:
        said = response.json()
        mask = said.get("mask")
        return Result(
            width=said["image"]["width"],
            height=said["image"]["height"],
            detections=tuple(
                Detection(tuple(one["box"]), one["label"], one["label_id"], one["score"])
                for one in said.get("detections", ())
            ),
            classes=tuple(
                ClassScore(one["label"], one["label_id"], one["probability"]) for one in said.get("classes", ())
            ),
            segments=tuple(
                Segment(one["label"], one["label_id"], one["pixels"], one["fraction"])
                for one in said.get("segments", ())
            ),
            mask=None if mask is None else read_rle(mask["size"], mask["segments"]),
            model=said["model"],
            timing_ms=said["timing_ms"],
            cache=response.headers.get("X-Unihead-Cache", ""),
            request_id=response.headers.get("X-Request-ID", ""),
            picture=picture,
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UnreadableAnswer(f"the answer cannot be read: {error!r}", status=response.status_code) from error


def read_problem(response: httpx.Response) -> UniheadError:
    """Read an answer that is none, be it the service's or a proxy's."""
    try:
        problem = dict(response.json())
    except (ValueError, TypeError):
        problem = {}
    code, after = str(problem.get("code", "")), response.headers.get("Retry-After", "")
    return _KINDS.get(code, UniheadError)(
        str(problem.get("detail", f"the service, or what is before it, answers {response.status_code}")),
        status=response.status_code,
        code=code,
        request_id=response.headers.get("X-Request-ID", ""),
        retry_after_s=float(after) if after.isdecimal() else None,
    )


def choose_pause_s(failure: UniheadError, attempt: int) -> float | None:
    """Seconds to wait after an attempt, counted from 0; None if another one would fail as well."""
    if failure.status not in {0, httpx.codes.SERVICE_UNAVAILABLE}:
        return None
    longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt)
    return (failure.retry_after_s or 0.0) + random.uniform(longest / 2, longest)  # noqa: S311 - no secret


# What leads to an answer yields what must be waited for: a request to send, seconds to sleep, work to do, or flows to
# run beside each other. It gets back what came of it, or the error. The two clients differ in how they wait.
_Flow: TypeAlias = Generator[Any, Any, T]
_Later: TypeAlias = Coroutine[Any, Any, T]


class _Asking(Generic[HttpT, ResultT, ManyT, InfoT, ReadyT]):
    """Everything but waiting."""

    _make_http: Callable[..., HttpT]

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = 10,
        retries: int = 2,
        at_once: int = 8,
        http: HttpT | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: of the service, as http://127.0.0.1:8000.
            key: of the service, if it wants one.
            timeout_s: seconds for one answer, with all its tries and pauses.
            retries: further tries where the service cannot be reached or has no time now.
            at_once: requests of `predict_many` that run beside each other.
            http: of httpx, with proxies, certificates or a transport of your own; closed with this client.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url!r} is no address of a service; one looks like http://127.0.0.1:8000")
        self._url, self._timeout_s, self._retries, self._at_once = url.rstrip("/"), timeout_s, retries, at_once
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        # The service closes connections that have been idle for 75 s.
        self._http: HttpT = http or self._make_http(limits=httpx.Limits(keepalive_expiry=60))

    def predict(self, picture: Picture, **options: Unpack[Options]) -> ResultT:
        """Ask for all, or for the `tasks` among segment, detect and classify; the model runs once."""
        answer: ResultT = self._run(self._ask("predict", picture, options))
        return answer

    def segment(self, picture: Picture, **options: Unpack[Options]) -> ResultT:
        """Ask which class each pixel belongs to."""
        answer: ResultT = self._run(self._ask("segment", picture, options))
        return answer

    def detect(self, picture: Picture, **options: Unpack[Options]) -> ResultT:
        """Ask which objects are where."""
        answer: ResultT = self._run(self._ask("detect", picture, options))
        return answer

    def classify(self, picture: Picture, **options: Unpack[Options]) -> ResultT:
        """Ask what the whole picture shows."""
        answer: ResultT = self._run(self._ask("classify", picture, options))
        return answer

    def predict_many(self, pictures: Iterable[Picture], **options: Unpack[Options]) -> ManyT:
        """Ask about many at once; gives a result, or in its place what went wrong, for each, in their order."""
        answer: ManyT = self._run(self._ask_many(pictures, options))
        return answer

    def info(self) -> InfoT:
        """Ask what runs there: model, contract, limits."""
        answer: InfoT = self._run(self._ask_info())
        return answer

    def ready(self) -> ReadyT:
        """Ask, once, whether the service can answer now."""
        answer: ReadyT = self._run(self._ask_ready())
        return answer

    def _run(self, flow: _Flow[Any]) -> Any:  # noqa: ANN401 - an answer, or what can be awaited for one
        raise NotImplementedError

    def _ask(self, path: str, picture: Picture, options: Options) -> _Flow[Result]:
        query: dict[str, Any] = {**options}
        if not isinstance(query.get("tasks", ""), str):
            query["tasks"] = ",".join(query["tasks"])
        if path in {"predict", "segment"}:
            query["mask"] = "rle" if query.get("mask", True) else "none"
        body = yield partial(read_picture, picture)
        response = yield from self._exchange("POST", path, params=query, content=body)
        return read_result(response, body)

    def _ask_many(self, pictures: Iterable[Picture], options: Options) -> _Flow[list[Answer]]:
        answers: list[Answer] = yield [self._settle(picture, options) for picture in pictures]
        return answers

    def _settle(self, picture: Picture, options: Options) -> _Flow[Answer]:
        try:
            return (yield from self._ask("predict", picture, options))
        except (UniheadError, OSError, ValueError) as error:
            return error

    def _ask_info(self) -> _Flow[dict[str, Any]]:
        response = yield from self._exchange("GET", "info")
        return dict(response.json())

    def _ask_ready(self) -> _Flow[bool]:
        try:
            yield from self._exchange("GET", "readyz", retries=0)
        except (NoAnswer, Unavailable):
            return False
        return True

    def _exchange(self, method: str, path: str, *, retries: int | None = None, **parts: Any) -> _Flow[httpx.Response]:  # noqa: ANN401 - httpx's
        deadline = time.monotonic() + self._timeout_s
        for attempt in itertools.count():
            left_s = deadline - time.monotonic()
            headers = {**self._headers, TIMEOUT_HEADER: str(min(_MAX_TIMEOUT_MS, max(1, round(left_s * 1000))))}
            # With grace, so that the service can say itself that it is late: its clock starts when it has the picture.
            timeout = httpx.Timeout(left_s + _GRACE_S)
            try:
                response: httpx.Response = yield self._http.build_request(
                    method, f"{self._url}/{path}", headers=headers, timeout=timeout, **parts
                )
                if response.status_code == httpx.codes.OK:
                    return response
                failure = read_problem(response)
            except httpx.RequestError as error:
                failure = NoAnswer(f"{self._url} does not answer: {str(error) or type(error).__name__}")
                failure.__cause__ = error
            pause_s = choose_pause_s(failure, attempt)
            tries = self._retries if retries is None else retries
            if pause_s is None or attempt >= tries or time.monotonic() + pause_s >= deadline:
                raise failure
            yield pause_s
        raise AssertionError("counting does not end")


class Client(_Asking[httpx.Client, Result, list[Answer], dict[str, Any], bool]):
    """Asks and waits; for as many threads as you like. A context manager that keeps its connections."""

    _make_http = httpx.Client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _run(self, flow: _Flow[T]) -> T:
        outcome: Any = None
        try:
            while True:
                step = flow.throw(outcome) if isinstance(outcome, Exception) else flow.send(outcome)
                try:
                    outcome = self._take(step)
                except (httpx.RequestError, OSError, ValueError) as error:
                    outcome = error
        except StopIteration as end:
            return cast("T", end.value)

    def _take(self, step: Any) -> Any:  # noqa: ANN401 - see _Flow
        if isinstance(step, httpx.Request):
            return self._http.send(step)
        if isinstance(step, float):
            return time.sleep(step)
        if isinstance(step, list):
            with ThreadPoolExecutor(self._at_once) as pool:
                return list(pool.map(self._run, step))
        return step()


class AsyncClient(
    _Asking[httpx.AsyncClient, _Later[Result], _Later[list[Answer]], _Later[dict[str, Any]], _Later[bool]]
):
    """Asks and is awaited; for one event loop. A context manager that keeps its connections."""

    _make_http = httpx.AsyncClient

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _run(self, flow: _Flow[T]) -> T:
        outcome: Any = None
        try:
            while True:
                step = flow.throw(outcome) if isinstance(outcome, Exception) else flow.send(outcome)
                try:
                    outcome = await self._take(step)
                except (httpx.RequestError, OSError, ValueError) as error:
                    outcome = error
        except StopIteration as end:
            return cast("T", end.value)

    async def _take(self, step: Any) -> Any:  # noqa: ANN401 - see _Flow
        if isinstance(step, httpx.Request):
            return await self._http.send(step)
        if isinstance(step, float):
            return await asyncio.sleep(step)
        if isinstance(step, list):
            gate = asyncio.Semaphore(self._at_once)
            return await asyncio.gather(*(self._run_behind(gate, flow) for flow in step))
        return await asyncio.to_thread(step)

    async def _run_behind(self, gate: asyncio.Semaphore, flow: _Flow[T]) -> T:
        async with gate:
            return await self._run(flow)
