"""Ask a unihead service from Python: `Client("http://127.0.0.1:8000").predict("photo.jpg").detections[0].label`.

Needs httpx and numpy, and Pillow to draw; works where this file is copied to alone.
"""

from __future__ import annotations

import asyncio
import io
import os
import random
import re
import struct
import time
import urllib.parse
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, Self, TypeAlias, TypedDict, Unpack

import httpx
import numpy as np
from numpy.typing import NDArray

TIMEOUT_HEADER = "X-Request-Timeout-Ms"
_MAX_TIMEOUT_MS, _GRACE_S = 600_000, 0.25
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
# The service closes connections that have been idle for 75 s.
_LIMITS = httpx.Limits(keepalive_expiry=60)


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
    """One object found; `box` is x1, y1, x2, y2 in pixels of the upright picture, `score` 0..1.

    `label_id` is the position of `label` in `detection_classes` of the model's contract, which `Client.info` has.
    """

    box: tuple[float, float, float, float]
    label: str
    label_id: int
    score: float


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How probable one class is for the whole picture; 0..1; `label_id` is a position in `classification_classes`."""

    label: str
    label_id: int
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """How much of the picture one class covers; `label_id` is the value of its pixels in the mask.

    And the position of `label` in `segmentation_classes`.
    """

    label: str
    label_id: int
    pixels: int
    fraction: float


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What the service says about one picture, best and largest first; what is not there is empty, the mask None.

    That is what was not asked for, and what the model does not serve.

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
    """Decode COCO's compressed run lengths, one string a class, into class ids of `size`, [H, W]."""
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


def _make_query(path: str, options: Options) -> dict[str, Any]:
    query: dict[str, Any] = {**options}
    if not isinstance(query.get("tasks", ""), str):
        query["tasks"] = ",".join(query["tasks"])
    if path in {"predict", "segment"}:
        query["mask"] = "rle" if query.get("mask", True) else "none"
    return query


def read_result(response: httpx.Response, picture: bytes) -> Result:
    """Read an answer about a picture; raises UnreadableAnswer if it is something else."""
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
    """Read an answer that reports an error, be it the service's or a proxy's."""
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


@dataclass(slots=True)
class _Call:
    """One request with all its tries: what each of them sends, and how long to wait for the next one."""

    method: str
    url: str
    headers: Mapping[str, str]
    query: Mapping[str, Any] | None
    body: bytes | None
    deadline: float  # as time.monotonic()
    retries: int
    attempt: int = 0

    def build_request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Build the next try, which says how much time is left."""
        left_s = self.deadline - time.monotonic()
        headers = {**self.headers, TIMEOUT_HEADER: str(min(_MAX_TIMEOUT_MS, max(1, round(left_s * 1000))))}
        # With grace, so that the service can say itself that it is late: its clock starts when it has the picture.
        timeout = httpx.Timeout(left_s + _GRACE_S)
        return http.build_request(
            self.method, self.url, params=self.query, content=self.body, headers=headers, timeout=timeout
        )

    def find_pause_s(self, failure: UniheadError) -> float | None:
        """Seconds to wait before the next try; None if it would fail as well, come too late, or be one too many."""
        pause_s = choose_pause_s(failure, self.attempt)
        if pause_s is None or self.attempt >= self.retries or time.monotonic() + pause_s >= self.deadline:
            return None
        self.attempt += 1
        return pause_s


class _BaseClient:
    """What both clients share; nothing in here waits."""

    def __init__(self, url: str, key: str | None, timeout_s: float, retries: int, at_once: int) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url!r} is no address of a service; one looks like http://127.0.0.1:8000")
        self._url, self._timeout_s, self._retries, self._at_once = url.rstrip("/"), timeout_s, retries, at_once
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def _start(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        retries: int | None = None,
    ) -> _Call:
        deadline = time.monotonic() + self._timeout_s
        tries = self._retries if retries is None else retries
        return _Call(method, f"{self._url}/{path}", self._headers, query, body, deadline, tries)

    def _make_no_answer(self, error: httpx.RequestError) -> UniheadError:
        failure = NoAnswer(f"{self._url} does not answer: {str(error) or type(error).__name__}")
        failure.__cause__ = error
        return failure


class Client(_BaseClient):
    """Waits for its answers, in as many threads as you like. A context manager that keeps its connections open."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = 10,
        retries: int = 2,
        at_once: int = 8,
        http: httpx.Client | None = None,
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
        super().__init__(url, key, timeout_s, retries, at_once)
        self._http = http or httpx.Client(limits=_LIMITS)

    def __enter__(self) -> Self:
        return self

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
        return dict(self._exchange(self._start("GET", "info")).json())

    def ready(self) -> bool:
        """Ask, once, whether the service can answer now."""
        try:
            self._exchange(self._start("GET", "readyz", retries=0))
        except (NoAnswer, Unavailable):
            return False
        return True

    def _ask(self, path: str, picture: Picture, options: Options) -> Result:
        query = _make_query(path, options)
        body = read_picture(picture)
        response = self._exchange(self._start("POST", path, query=query, body=body))
        return read_result(response, body)

    def _exchange(self, call: _Call) -> httpx.Response:
        while True:
            try:
                response = self._http.send(call.build_request(self._http))
            except httpx.RequestError as error:
                failure = self._make_no_answer(error)
            else:
                if response.status_code == httpx.codes.OK:
                    return response
                failure = read_problem(response)
            pause_s = call.find_pause_s(failure)
            if pause_s is None:
                raise failure
            time.sleep(pause_s)


class AsyncClient(_BaseClient):
    """The same, to be awaited, in one event loop of asyncio. A context manager that keeps its connections open."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = 10,
        retries: int = 2,
        at_once: int = 8,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """Connect to nothing yet; see `Client` for the arguments."""
        super().__init__(url, key, timeout_s, retries, at_once)
        self._http = http or httpx.AsyncClient(limits=_LIMITS)

    async def __aenter__(self) -> Self:
        return self

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
        return dict((await self._exchange(self._start("GET", "info"))).json())

    async def ready(self) -> bool:
        """Ask, once, whether the service can answer now."""
        try:
            await self._exchange(self._start("GET", "readyz", retries=0))
        except (NoAnswer, Unavailable):
            return False
        return True

    async def _ask(self, path: str, picture: Picture, options: Options) -> Result:
        query = _make_query(path, options)
        body = await asyncio.to_thread(read_picture, picture)
        response = await self._exchange(self._start("POST", path, query=query, body=body))
        return read_result(response, body)

    async def _exchange(self, call: _Call) -> httpx.Response:
        while True:
            try:
                response = await self._http.send(call.build_request(self._http))
            except httpx.RequestError as error:
                failure = self._make_no_answer(error)
            else:
                if response.status_code == httpx.codes.OK:
                    return response
                failure = read_problem(response)
            pause_s = call.find_pause_s(failure)
            if pause_s is None:
                raise failure
            await asyncio.sleep(pause_s)
