"""Ask a unihead service from Python: `Client("http://127.0.0.1:8000").predict("photo.jpg").detections[0].label`.

Needs httpx and numpy, and Pillow to draw; works where this file is copied to alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import io
import itertools
import json
import os
import random
import re
import struct
import threading
import time
import urllib.parse
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias, TypedDict, Unpack

import httpx
import numpy as np
from numpy.typing import NDArray

TIMEOUT_HEADER = "X-Request-Timeout-Ms"
_MAX_TIMEOUT_MS, _GRACE_S = 600_000, 0.25
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_LIMITS = httpx.Limits(keepalive_expiry=60)  # the service closes connections that have been idle for 75 s
# More than a mask of noise takes of the largest picture that a service takes by default, and than any camera writes.
MAX_ANSWER_BYTES, _MAX_PIXELS, _MAX_NUMBER, _MAX_CHARACTERS = 2**23, 200_000_000, 2**53, 2000
# Control characters, what turns or ends lines of text, halves of characters: a terminal would do what they say.
_OBEYED = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# What httpx, and what it is made of, may raise in place of an answer.
_FAULTS = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError)


class UniheadError(Exception):
    """A picture was not answered; `code` and `detail` are the service's words, `status` 0 if there was no answer."""

    code: str = ""

    def __init__(
        self, detail: str, *, status: int = 0, code: str = "", request_id: str = "", retry_after_s: float | None = None
    ) -> None:
        self.detail, self.status, self.code = make_printable(detail), status, code or self.code
        super().__init__(self.detail)
        self.request_id, self.retry_after_s = make_printable(request_id), retry_after_s

    def __init_subclass__(cls) -> None:
        """Take the code from the name: EmptyBody is empty_body."""
        cls.code = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


# ruff: noqa: E701 - as in service/errors.py, a line a kind, so that the tree fits on a screen
# fmt: off
class NoAnswer(UniheadError): """The service cannot be reached, disconnected, or did not answer in time."""
class UnreadableAnswer(UniheadError): """What answered is no unihead service, or a newer one."""
class InternalError(UniheadError): """Something broke in the service; its log has more under the request id."""
class ModelOutputInvalid(UniheadError): """The model gave no valid answer about this picture."""
class RequestError(UniheadError): """The request cannot be answered, and you can fix that."""
class EmptyBody(RequestError): """The request carried no picture."""
class MalformedRequest(RequestError): """The body could not be read as what it says it is."""
class Unauthorized(RequestError): """The service wants a key, and not this one."""
class ForeignOrigin(RequestError): """A page of another origin has sent it."""
class UnknownModel(RequestError): """A model is asked for that is not served there."""
class TaskNotServed(RequestError): """The model there was not made for this task."""
class RequestTimeout(RequestError): """The picture did not come to the service in time."""
class BodyTooLarge(RequestError): """The picture has more bytes than the service takes."""
class TooManyPixels(RequestError): """The picture has more pixels than the service takes."""
class UnsupportedImage(RequestError): """It is neither JPEG, PNG nor WebP."""
class UnknownHost(RequestError): """The service is not asked by that name."""
class DamagedImage(RequestError): """The picture begins well and cannot be decoded."""
class PictureTooCostly(RequestError): """The picture's scans, frames or shape would cost too much."""
class InvalidParameter(RequestError): """An option is unknown or out of its range."""
class HeaderTooLarge(RequestError): """The request line and header have more bytes than the service takes."""
class Unavailable(UniheadError): """The request is right and cannot be answered now; trying again later helps."""
class NotReady(Unavailable): """The service has no model loaded yet, or has stopped."""
class Draining(Unavailable): """The service is shutting down."""
class Overloaded(Unavailable): """More pictures came than can be answered in time."""
class DeadlineExceeded(Unavailable): """The picture was taken and not answered in time."""
# fmt: on
_KINDS = {kind.code: kind for base in (UniheadError, RequestError, Unavailable) for kind in base.__subclasses__()}


@dataclass(frozen=True, slots=True)
class Detection:
    """One object; `box` is x1, y1, x2, y2 in pixels of the upright picture, `label_id` is of `detection_classes`."""

    box: tuple[float, float, float, float]
    label: str
    label_id: int
    score: float


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How probable one class is for the whole picture; 0..1; `label_id` is of `classification_classes`."""

    label: str
    label_id: int
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """How much one class covers; `label_id` is of `segmentation_classes`, and the value of its pixels in the mask."""

    label: str
    label_id: int
    pixels: int
    fraction: float


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What the service says about one picture, best and largest first; what it does not say is empty, the mask None.

    `width` and `height` are those of the upright picture, `mask` is [height, width] class ids, `model` has a name and
    version, `timing_ms` the service's stages, `cache` is hit, coalesced, miss or bypass, `picture` the bytes sent. A
    `label_id` is a position in a list of the model's contract, see `Client.info`.
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

    def to_supervision(self) -> Any:  # noqa: ANN401 - a supervision.Detections, where supervision is installed
        """Give the detections as `supervision.Detections`, names as `class_name` in its data; needs supervision."""
        from supervision import Detections  # noqa: PLC0415 - optional

        numbers = np.array([(*one.box, one.score, one.label_id) for one in self.detections]).reshape(-1, 6)
        names: dict[str, Any] = {"class_name": np.array([one.label for one in self.detections], np.str_)}
        return Detections(numbers[:, :4], confidence=numbers[:, 4], class_id=numbers[:, 5].astype(int), data=names)

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
    """Decode COCO's compressed run lengths, one string a class, into class ids of `size`, [H, W]."""
    height, width = size
    if not 0 < height * width <= _MAX_PIXELS:
        raise ValueError(f"a mask of {height} x {width} pixels")
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
        class_ids = np.full(len(inside), _read_value(segment["label_id"], "int"), np.uint8)
        runs.append(np.stack([counts.cumsum()[1::2] - inside, inside, class_ids]))
    begins, lengths, class_ids = (table := np.concatenate(runs, axis=1))[:, table[0].argsort()]
    ends = lengths.clip(0, height * width).cumsum()
    if not np.array_equal(np.append(begins, height * width), np.append(0, ends)) or (ends - begins != lengths).any():
        raise ValueError("the run lengths do not cover each pixel once")
    return np.ascontiguousarray(np.repeat(class_ids.astype(np.uint8), lengths).reshape(width, height).T)


def make_printable(text: str) -> str:
    """Write what a terminal would obey as an escape, as in a string of Python; and no more than a page of it."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text[:_MAX_CHARACTERS])


def _read_value(value: Any, kind: str) -> Any:  # noqa: ANN401 - JSON, and what the kind says
    """Take what JSON has for a field that is annotated as `kind`; raises TypeError or ValueError if it is no such."""
    if kind.startswith("tuple"):
        return tuple(_read_value(one, "float") for one, _ in zip(value, range(4), strict=True))
    wanted: Any = {"str": {str}, "int": {int}, "float": {int, float}}[kind]
    if type(value) not in wanted or (kind != "str" and not abs(value) <= _MAX_NUMBER) or (kind == "int" and value < 0):
        raise TypeError(f"{value!r:.80} is no {kind}")
    return make_printable(value) if kind == "str" else float(value) if kind == "float" else value


def _read_rows(kind: Callable[..., Any], rows: Iterable[Mapping[str, Any]]) -> tuple[Any, ...]:
    return tuple(kind(*[_read_value(row[one.name], one.type) for one in fields(kind)]) for row in rows)  # type: ignore[arg-type]


def _read_json(response: httpx.Response) -> dict[str, Any]:
    """Read an object; raises UnreadableAnswer if it is something else."""
    try:
        return {**json.loads(response.content)}
    except (ValueError, TypeError, RecursionError) as error:
        raise UnreadableAnswer(f"the answer is no JSON: {error!r}", status=response.status_code) from error


def read_result(response: httpx.Response, picture: bytes) -> Result:
    """Read an answer about a picture; raises UnreadableAnswer if it is something else."""
    said = _read_json(response)
    try:
        size = width, height = [_read_value(said["image"][side], "int") for side in ("width", "height")]
        mask, detections = said.get("mask"), _read_rows(Detection, said.get("detections", ()))
        if any(not 0 <= side <= most + 1 for one in detections for side, most in zip(one.box, size * 2, strict=True)):
            raise ValueError("a box lies outside of the picture")
        if mask is not None and mask["size"] != [height, width]:
            raise ValueError("the mask is not as large as the picture")
        return Result(
            *(width, height, detections),
            _read_rows(ClassScore, said.get("classes", ())),
            _read_rows(Segment, said.get("segments", ())),
            mask=None if mask is None else read_rle((height, width), mask["segments"]),
            model={name: _read_value(said["model"][name], "str") for name in ("name", "version")},
            timing_ms={make_printable(name): _read_value(ms, "float") for name, ms in said["timing_ms"].items()},
            cache=make_printable(response.headers.get("X-Unihead-Cache", "")),
            request_id=make_printable(response.headers.get("X-Request-ID", "")),
            picture=picture,
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise UnreadableAnswer(f"the answer cannot be read: {error!r}", status=response.status_code) from error


def read_problem(response: httpx.Response) -> UniheadError:
    """Read an answer that reports an error, be it the service's or a proxy's."""
    code, detail = "", f"the service, or what is before it, answers {response.status_code}"
    with contextlib.suppress(UnreadableAnswer, RecursionError):
        problem = _read_json(response)
        code, detail = make_printable(str(problem.get("code", ""))), str(problem.get("detail", detail))
    request_id, after = response.headers.get("X-Request-ID", ""), response.headers.get("Retry-After", "")
    after_s = float(after) if after.isdecimal() else None
    return _KINDS.get(code, UniheadError)(
        detail, status=response.status_code, code=code, request_id=request_id, retry_after_s=after_s
    )


def _wait_in_thread(send: Callable[..., httpx.Response], request: Mapping[str, Any], deadline: float) -> httpx.Response:
    """Send in another thread, and give the answer or raise TimeoutError: sockets have timeouts for each byte only."""
    answer: Future[httpx.Response] = Future()

    def run() -> None:
        try:
            answer.set_result(send(request, deadline))
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            answer.set_exception(error)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True).start()
    return answer.result(request["timeout"])


class _BaseClient:
    """What both clients share; nothing in here waits."""

    def __init__(self, url: str, key: str | None, timeout_s: float, retries: int, at_once: int) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url!r} is no address of a service; one looks like http://127.0.0.1:8000")
        self._url, self._timeout_s, self._retries, self._at_once = url.rstrip("/"), timeout_s, retries, at_once
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def _make_request(self, path: str, options: Options | None, body: bytes | None, deadline: float) -> dict[str, Any]:
        query: dict[str, Any] = {**(options or {})}
        if not isinstance(query.get("tasks", ""), str):
            query["tasks"] = ",".join(query["tasks"])
        if path in {"predict", "segment"}:
            query["mask"] = "rle" if query.get("mask", True) else "none"
        left_s = max(0.0, deadline - time.monotonic())
        left_ms = f"{min(max(1000 * left_s, 1), _MAX_TIMEOUT_MS):.0f}"
        # Not packed: a thousandth of the bytes would be enough to fill the memory.
        headers = {**self._headers, TIMEOUT_HEADER: left_ms, "Accept-Encoding": "identity"}
        asked = {"method": "GET" if options is None else "POST", "url": f"{self._url}/{path}", "params": query or None}
        # With grace, so that the service can say itself that it is late: its clock starts when it has the picture.
        return {**asked, "headers": headers, "content": body, "timeout": left_s + _GRACE_S}

    def _check(self, response: httpx.Response, body: bytearray, deadline: float) -> None:
        if time.monotonic() > deadline + _GRACE_S:
            raise TimeoutError("timed out")
        if len(body) > MAX_ANSWER_BYTES or response.headers.get("Content-Encoding", "identity") != "identity":
            sentence = f"the answer is packed, or has more than {MAX_ANSWER_BYTES} bytes"
            raise UnreadableAnswer(sentence, status=response.status_code)

    def _choose_pause_s(self, path: str, failure: UniheadError, attempt: int, deadline: float) -> float:
        """Seconds before the next try; raises the failure if that would fail as well, be too late or one too many."""
        longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt)
        pause_s = (failure.retry_after_s or 0.0) + random.uniform(longest / 2, longest)  # noqa: S311 - no secret
        passes = failure.status in {0, httpx.codes.SERVICE_UNAVAILABLE} and path != "readyz"
        if not passes or attempt >= self._retries or time.monotonic() + pause_s >= deadline:
            raise failure
        return pause_s


class Client(_BaseClient, contextlib.AbstractContextManager["Client"]):
    """Waits for its answers, in as many threads as you like. A context manager that keeps its connections open."""

    def __init__(self, url: str, key: str | None = None, *, timeout_s: float = 10, retries: int = 2, at_once: int = 8,
                 http: httpx.Client | None = None) -> None:  # fmt: skip
        """Connect to nothing yet.

        Args:
            url: of the service, as http://127.0.0.1:8000.
            key: of the service, if it wants one.
            timeout_s: seconds for one answer, with all its tries and pauses.
            retries: further tries where the service cannot be reached or has no time now.
            at_once: requests of `predict_many` that run beside each other.
            http: of httpx, with proxies, certificates or a transport of your own; closed with this client.
        """
        super().__init__(url, key, timeout_s, retries, at_once)
        self._http = http or httpx.Client(limits=_LIMITS)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def predict(self, picture: Picture, **options: Unpack[Options]) -> Result:
        """Ask for all that the model serves, or for the `tasks` among segment, detect and classify; it runs once."""
        return self._ask("predict", picture, options)

    def segment(self, picture: Picture, **options: Unpack[Options]) -> Result:
        """Ask which class each pixel belongs to."""
        return self._ask("segment", picture, options)

    def detect(self, picture: Picture, **options: Unpack[Options]) -> Result:
        """Ask which objects are where."""
        return self._ask("detect", picture, options)

    def classify(self, picture: Picture, **options: Unpack[Options]) -> Result:
        """Ask what the whole picture shows."""
        return self._ask("classify", picture, options)

    def predict_many(self, pictures: Iterable[Picture], **options: Unpack[Options]) -> list[Answer]:
        """Ask about many at once; gives a result, or in its place what went wrong, for each, in their order."""
        pictures = list(pictures)  # all of them before the first is sent

        def settle(picture: Picture) -> Answer:
            try:
                return self._ask("predict", picture, options)
            except (UniheadError, OSError, ValueError) as error:
                return error

        with ThreadPoolExecutor(self._at_once) as pool:
            return list(pool.map(settle, pictures))

    def info(self) -> dict[str, Any]:
        """Ask what runs there: model, contract, limits."""
        return _read_json(self._exchange("info"))

    def ready(self) -> bool:
        """Ask, once, whether the service can answer now."""
        with contextlib.suppress(NoAnswer, Unavailable):
            return self._exchange("readyz").is_success
        return False

    def _ask(self, path: str, picture: Picture, options: Options) -> Result:
        body = read_picture(picture)
        return read_result(self._exchange(path, options, body), body)

    def _send(self, request: Mapping[str, Any], deadline: float) -> httpx.Response:
        body = bytearray()
        with self._http.stream(**request) as response:
            self._check(response, body, deadline)
            for part in response.iter_bytes():
                body += part
                self._check(response, body, deadline)
        return httpx.Response(response.status_code, headers=response.headers, content=bytes(body))

    def _exchange(self, path: str, options: Options | None = None, body: bytes | None = None) -> httpx.Response:
        deadline = time.monotonic() + self._timeout_s
        for attempt in itertools.count():
            request = self._make_request(path, options, body, deadline)
            try:
                response = _wait_in_thread(self._send, request, deadline)
                if response.status_code == httpx.codes.OK:
                    return response
                failure = read_problem(response)
            except _FAULTS as error:
                failure = NoAnswer(f"{self._url} does not answer: {str(error) or type(error).__name__}")
                failure.__cause__ = error
            time.sleep(self._choose_pause_s(path, failure, attempt, deadline))
        raise AssertionError("tries have an end")


class AsyncClient(_BaseClient, contextlib.AbstractAsyncContextManager["AsyncClient"]):
    """The same, to be awaited, in one event loop of asyncio. A context manager that keeps its connections open."""

    def __init__(self, url: str, key: str | None = None, *, timeout_s: float = 10, retries: int = 2, at_once: int = 8,
                 http: httpx.AsyncClient | None = None) -> None:  # fmt: skip
        """Connect to nothing yet; see `Client` for the arguments."""
        super().__init__(url, key, timeout_s, retries, at_once)
        self._http = http or httpx.AsyncClient(limits=_LIMITS)

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def predict(self, picture: Picture, **options: Unpack[Options]) -> Result:
        """Ask for all that the model serves, or for the `tasks` among segment, detect and classify; it runs once."""
        return await self._ask("predict", picture, options)

    async def segment(self, picture: Picture, **options: Unpack[Options]) -> Result:
        """Ask which class each pixel belongs to."""
        return await self._ask("segment", picture, options)

    async def detect(self, picture: Picture, **options: Unpack[Options]) -> Result:
        """Ask which objects are where."""
        return await self._ask("detect", picture, options)

    async def classify(self, picture: Picture, **options: Unpack[Options]) -> Result:
        """Ask what the whole picture shows."""
        return await self._ask("classify", picture, options)

    async def predict_many(self, pictures: Iterable[Picture], **options: Unpack[Options]) -> list[Answer]:
        """Ask about many at once; gives a result, or in its place what went wrong, for each, in their order."""
        pictures = list(pictures)  # all of them before the first is sent
        gate = asyncio.Semaphore(self._at_once)

        async def settle(picture: Picture) -> Answer:
            try:
                async with gate:
                    return await self._ask("predict", picture, options)
            except (UniheadError, OSError, ValueError) as error:
                return error

        return await asyncio.gather(*[settle(picture) for picture in pictures])

    async def info(self) -> dict[str, Any]:
        """Ask what runs there: model, contract, limits."""
        return _read_json(await self._exchange("info"))

    async def ready(self) -> bool:
        """Ask, once, whether the service can answer now."""
        with contextlib.suppress(NoAnswer, Unavailable):
            return (await self._exchange("readyz")).is_success
        return False

    async def _ask(self, path: str, picture: Picture, options: Options) -> Result:
        body = await asyncio.to_thread(read_picture, picture)
        return await asyncio.to_thread(read_result, await self._exchange(path, options, body), body)

    async def _send(self, request: Mapping[str, Any], deadline: float) -> httpx.Response:
        body = bytearray()
        async with asyncio.timeout(request["timeout"]), self._http.stream(**request) as response:
            self._check(response, body, deadline)
            async for part in response.aiter_bytes():
                body += part
                self._check(response, body, deadline)
        return httpx.Response(response.status_code, headers=response.headers, content=bytes(body))

    async def _exchange(self, path: str, options: Options | None = None, body: bytes | None = None) -> httpx.Response:
        deadline = time.monotonic() + self._timeout_s
        for attempt in itertools.count():
            request = self._make_request(path, options, body, deadline)
            try:
                response = await self._send(request, deadline)
                if response.status_code == httpx.codes.OK:
                    return response
                failure = read_problem(response)
            except _FAULTS as error:
                failure = NoAnswer(f"{self._url} does not answer: {str(error) or type(error).__name__}")
                failure.__cause__ = error
            await asyncio.sleep(self._choose_pause_s(path, failure, attempt, deadline))
        raise AssertionError("tries have an end")
