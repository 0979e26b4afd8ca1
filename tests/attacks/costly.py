"""Small requests that would cost much: shapes, many pictures, JSON, bombs, digits; and who asks beside them."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from PIL import Image

from service.commands.spawn import Spawned
from tests.attacks.asking import Client, percentile
from tests.attacks.goals import Figure, at_most, none_of
from tests.attacks.watching import look, reset_peak
from tests.service.fakes import make_form

MOST_BYTES = 10_000_000
INFER = "/v2/models/unihead/infer"
LENGTH = "Inference-Header-Content-Length"
_PATHS = ("/predict", "/segment", "/detect", "/classify", "/overlay")
_HEALTH_EVERY_S = 0.005
_REFUSALS = frozenset({400, 413, 415, 422, 431})


def repeat(unit: bytes, before: bytes = b'{"inputs":[', after: bytes = b"]}", size: int = MOST_BYTES) -> bytes:
    """Repeat a unit between a beginning and an end, without a comma behind the last one, up to a size in bytes."""
    count = (size - len(before) - len(after)) // len(unit)
    return before + (unit * count).rstrip(b",") + after


def make_entry(name: str = "image", datatype: str = "BYTES", shape: str = "[1]", data: str = "[]") -> bytes:
    """Write an inference request with one input; shape and data are JSON."""
    return f'{{"inputs":[{{"name":"{name}","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}'.encode()


_DATA = make_entry(data="[").removesuffix(b"}]}")
_SHAPE = b'{"inputs":[{"name":"image","datatype":"BYTES","data":[],"shape":['
# Less than what is refused for its size alone (service.api.oip.schema).
_FEW = 1_900_000
COSTLY_JSON: dict[str, Callable[[], bytes]] = {
    "objects": lambda: repeat(b"{},"),
    "lists": lambda: repeat(b"[],"),
    "numbers": lambda: repeat(b"0,"),
    "inputs": lambda: repeat(b'{"name":"image","datatype":"BYTES","shape":[1]},', size=_FEW),
    "sizes": lambda: repeat(b"9,", _SHAPE, b"]}]}", size=_FEW),
    "lists in the data": lambda: repeat(b"[],", _DATA, b"]}]}", size=_FEW),
    "objects in the data": lambda: repeat(b"{},", _DATA, b"]}]}", size=_FEW),
    "texts in the data": lambda: repeat(b'"",', _DATA, b"]}]}", size=_FEW),
    "blanks": lambda: repeat(b" ", _DATA, b"]}]}"),
    "some blanks": lambda: repeat(b" ", _DATA, b"]}]}", size=_FEW),
    "escapes": lambda: repeat(b"\\n", _DATA + b'"', b'"]}]}', size=_FEW),
    "digits": lambda: repeat(b"1", _DATA, b"]}]}"),
    "digits of a size": lambda: repeat(b"1", _SHAPE, b"]}]}"),
    "an id": lambda: repeat(b"x", b'{"id":"', b'","inputs":[]}'),
    "a name": lambda: make_entry(name="x" * 9_000_000),
    "a datatype": lambda: make_entry(datatype="x" * 9_000_000),
    "names that are not known": lambda: repeat(b'"a":[],', b"{", b"}", size=_FEW),
    "parameters": lambda: repeat(b'"a":0,', b'{"parameters":{', b'},"inputs":[]}', size=_FEW),
    "outputs": lambda: repeat(b'{"name":"mask"},', b'{"outputs":[', b'],"inputs":[' + make_entry()[11:], size=_FEW),
    "nesting": lambda: b"[" * MOST_BYTES,
    "nesting in the data": lambda: _DATA + b"[" * _FEW,
    "a picture": lambda: make_entry(data=json.dumps([base64.b64encode(os.urandom(7_000_000)).decode()])),
    "six inputs of numbers, the last one wrong": lambda: make_entry(
        "images", "UINT8", "[6,320,320,3]", f"[{'7,' * (6 * 320 * 320 * 3 - 1)}256]"
    ),
    "a number of blanks": lambda: repeat(
        b" ", make_entry("images", "UINT8", "[1,320,320,3]", "[1")[:-4], b"]}]}", size=_FEW
    ),
}


@dataclass(frozen=True, slots=True)
class Costly:
    """One request.

    Attributes:
        name: what it is.
        path: that it is sent to.
        body: of it.
        headers: of it.
    """

    name: str
    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def make_requests() -> list[Costly]:
    """All of them, ready to be sent: whoever sends them has no work to do beside."""
    gz = {"Content-Encoding": "gzip"}
    packed = [Costly(f"JSON: {name}", INFER, gzip.compress(make(), 6), gz) for name, make in COSTLY_JSON.items()]
    bomb = gzip.compress(bytes(100 * MOST_BYTES), 9)
    form, form_type = make_form(file=bytes(MOST_BYTES))
    bombs = [Costly(f"a gigabyte of gzip to {path}", path, bomb, gz) for path in (*_PATHS, INFER)]
    bombs.append(Costly("a packed form of 10 MB", "/predict", gzip.compress(form), {**gz, "Content-Type": form_type}))
    return [*packed, *bombs, *_make_pictures(), *_make_digits()]


def _make_pictures() -> list[Costly]:
    file = io.BytesIO()
    Image.new("RGB", (5000, 5000), (120, 130, 140)).save(file, "WEBP", lossless=True)
    large = file.getvalue()
    found = [(f"{count} empty pictures", [b""] * count) for count in (17, 10_000, 300_000)]
    found += [(f"{count} masks of 25 megapixels", [large] * count) for count in (2, 16, 200)]
    requests = []
    for name, elements in found:
        data = b"".join(len(one).to_bytes(4, "little") + one for one in elements)
        parameters = {"binary_data_size": len(data)}
        entry = {"name": "image", "datatype": "BYTES", "shape": [len(elements)], "parameters": parameters}
        outputs = [{"name": "mask", "parameters": {"binary_data": True}}]
        head = json.dumps({"inputs": [entry], "outputs": outputs}).encode()
        headers = {LENGTH: str(len(head)), "Content-Encoding": "gzip"}
        requests.append(Costly(name, INFER, gzip.compress(head + data), headers))
    as_json = make_entry(data=json.dumps([base64.b64encode(large).decode()]))
    return [*requests, Costly("a mask of 25 megapixels as JSON", INFER, as_json)]


def _make_digits() -> list[Costly]:
    nines, zeros = "9" * 5000, "0" * 5000
    headers = [(name, digits) for name in ("X-Request-Timeout-Ms", LENGTH) for digits in (nines, zeros, zeros + "1")]
    return [
        *(Costly(f"{name} of 5000 digits", INFER, b"x", {name: digits}) for name, digits in headers),
        *(Costly(f"a query of 5000 digits to {path}", f"{path}?top_k={nines}", b"x") for path in _PATHS),
        *(
            Costly(f"{name} of 31,000 bytes", "/segment", b"x", {name: text})
            for name in ("Accept", "Accept-Encoding", "Cache-Control")
            for text in ("," * 31_000, "a/b;q=1," * 3800, "image/png" + ";" * 30_000)
        ),
    ]


async def measure(
    service: Spawned, requests: Sequence[Costly], *, at_once: int, health_ms: float, memory_mb: float
) -> list[Figure]:
    """Send each request several times at once, and ask /healthz all the while.

    Args:
        service: that gets them.
        requests: in turn.
        at_once: of each.
        health_ms: that no answer of /healthz may take longer than.
        memory_mb: that the service may grow by meanwhile.
    """
    health_times: list[float] = []
    strange: list[str] = []
    before_mb = look(service.pid).memory_mb
    reset_peak(service.pid)

    async def ask_health() -> None:
        async with Client(service.host, service.port) as client:
            while True:
                answer = await client.ask("/healthz", method="GET")
                health_times.append(answer.ms)
                await asyncio.sleep(_HEALTH_EVERY_S)

    async def send(request: Costly) -> None:
        async with Client(service.host, service.port) as client:
            answer = await client.ask(request.path, request.body, request.headers)
            if answer.outcome not in _REFUSALS or len(answer.body) > 2000:
                strange.append(f"{request.name}: {answer.outcome}, {len(answer.body)} bytes")

    asking = asyncio.ensure_future(ask_health())
    for request in requests:
        await asyncio.gather(*(send(request) for _ in range(at_once)))
    asking.cancel()
    grown_mb = look(service.pid).peak_mb - before_mb
    what, total = f"{len(requests)} small requests that would cost much, {at_once} at once", len(requests) * at_once
    return [
        none_of(f"{what}: not refused in a short sentence", strange, total),
        at_most(f"{what}: the longest of {len(health_times)} /healthz beside", max(health_times), health_ms, "ms"),
        at_most(f"{what}: /healthz, 99th percentile", percentile(health_times, 0.99), health_ms / 2, "ms"),
        at_most(f"{what}: memory at most", grown_mb, memory_mb, "MB"),
    ]
