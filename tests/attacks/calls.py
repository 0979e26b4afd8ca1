"""The gRPC port: messages that are broken, streams of HTTP/2 that are broken, and what costs much; nobody hangs.

A broken message is sent by a whole client, and must get a status; a broken stream is sent byte for byte, and the server
must end the connection once its client sends no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import dataclass, field

import grpc

from service.api.grpc.methods import SERVICE
from service.api.grpc.open_inference_pb2 import ModelInferRequest
from tests.attacks.goals import Figure, at_most, none_of
from tests.attacks.mutants import make_seeds, mutate
from tests.attacks.watching import is_running, look
from tests.grpc_service import GrpcSpawned

INFER = f"/{SERVICE}/ModelInfer"
_AT_ONCE = 4
# Until an answer counts as none.
_STUCK_S = 20
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_END_STREAM, _END_HEADERS = 1, 4
_MOST_FRAME_BYTES = 2**14
# What a message may be told.
MESSAGE_STATUSES = frozenset({"OK", "INVALID_ARGUMENT", "NOT_FOUND", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})


@dataclass(slots=True)
class Sent:
    """What came of a number of messages or streams.

    Attributes:
        statuses: how often each came.
        strange: those that nothing of the kind may get.
        ms: of each.
        memory_mb: after each.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    strange: list[str] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)


def make_requests() -> dict[str, bytes]:
    """Whole messages of each kind, by name."""
    pictures = list(make_seeds().values())
    square = bytes(32 * 32 * 3)
    requests = {
        "raw": ModelInferRequest(raw_input_contents=[len(pictures[0]).to_bytes(4, "little") + pictures[0]]),
        "two": ModelInferRequest(raw_input_contents=[b"".join(len(p).to_bytes(4, "little") + p for p in pictures[:2])]),
        "contents": ModelInferRequest(),
        "square": ModelInferRequest(raw_input_contents=[square]),
        "numbers": ModelInferRequest(),
    }
    for name, request in requests.items():
        request.model_name, request.model_version, request.id = "unihead", "1", "7"
        request.parameters["timeout"].int64_param = 5_000_000
        is_file = name in {"raw", "two", "contents"}
        shape = [2 if name == "two" else 1] if is_file else [1, 32, 32, 3]
        tensor = request.inputs.add(name="image" if is_file else "images", datatype="BYTES" if is_file else "UINT8")
        tensor.shape.extend(shape)
        for output in ("boxes", "class_probs"):
            request.outputs.add(name=output).parameters["binary_data"].bool_param = True
    requests["contents"].inputs[0].contents.bytes_contents.append(pictures[0])
    requests["numbers"].inputs[0].contents.uint_contents.extend(square)
    return {name: request.SerializeToString() for name, request in requests.items()}


def make_messages(number: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """So many mutants of whole messages, the same for the same seed."""
    chance, requests = random.Random(seed), make_requests()
    names = sorted(requests)
    for index in range(number):
        name = chance.choice(names)
        how, message = mutate(bytearray(requests[name]), requests[chance.choice(names)], chance)
        yield f"{index}:{how}:{name}", message


def make_bombs() -> Iterator[tuple[str, bytes]]:
    """Messages that protobuf would make very much of."""
    whole, million = make_requests()["raw"], 2**20
    yield "a million empty inputs", b"\x2a\x00" * million
    yield "a million empty outputs", b"\x32\x00" * million
    yield "a million empty tensors", b"\x3a\x00" * million
    yield "a million parameters", b"\x22\x02\x0a\x00" * million
    yield "an input of a million sizes", b"\x2a" + varint(million) + b"\x18\x01" * (million // 2)
    yield (
        "eight million empty elements",
        b"\x2a" + varint(8 * million + 5) + b"\x2a" + varint(8 * million) + b"\x42\x00" * (4 * million),
    )
    yield (
        "nine million numbers",
        b"\x2a"
        + varint(9 * million + 10)
        + b"\x2a"
        + varint(9 * million + 5)
        + b"\x22"
        + varint(9 * million)
        + bytes(9 * million),
    )
    yield "groups in groups", b"\x0b" * million
    yield "a name of nine megabytes", b"\x0a" + varint(9 * million) + b"x" * (9 * million)
    yield "a length beyond the end", whole + b"\x3a\xff\xff\xff\xff\x0f"
    yield "a number without an end", whole + b"\xff" * 20


def varint(value: int) -> bytes:
    text = b""
    while value > 127:
        text += bytes([value & 127 | 128])
        value >>= 7
    return text + bytes([value])


async def send_messages(service: GrpcSpawned, items: Iterable[tuple[str, bytes]]) -> Sent:
    """Send all messages, several at once, and keep what came."""
    sent, queue = Sent(), iter(items)
    async with grpc.aio.insecure_channel(service.address, options=[("grpc.enable_retries", 0)]) as channel:
        infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)

        async def work() -> None:
            for name, message in queue:
                started = time.perf_counter()
                try:
                    await infer(message, timeout=_STUCK_S)
                    status = "OK"
                except grpc.aio.AioRpcError as error:
                    status = error.code().name
                    if status not in MESSAGE_STATUSES:
                        sent.strange.append(f"{name}: {status} {error.details()}")
                sent.ms.append((time.perf_counter() - started) * 1000)
                sent.statuses[status] += 1
                sent.memory_mb.append(look(service.http.pid).memory_mb)

        await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    return sent


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2 (RFC 9113, sec. 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def head(path: bytes = INFER.encode(), *more: tuple[bytes, bytes]) -> bytes:
    """A header block of a call, without compression (RFC 7541, sec. 6.2.2)."""
    fields = [
        *((b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x")),
        *((b"te", b"trailers"), (b"content-type", b"application/grpc")),
        *more,
    ]
    return b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields)


def call(message: bytes, block: bytes | None = None, stream: int = 1) -> bytes:
    """The frames of a call."""
    data = b"\0" + struct.pack(">I", len(message)) + message
    pieces = [data[at : at + _MOST_FRAME_BYTES] for at in range(0, len(data), _MOST_FRAME_BYTES)]
    frames = [frame(_DATA, 0, stream, piece) for piece in pieces[:-1]]
    begin = frame(_HEADERS, _END_HEADERS, stream, head() if block is None else block)
    return b"".join([begin, *frames, frame(_DATA, _END_STREAM, stream, pieces[-1])])


def make_streams(number: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """So many mutants of the bytes of two calls on a connection, the same for the same seed."""
    chance, requests = random.Random(seed), make_requests()
    start = frame(_SETTINGS, 0, 0, b"")
    wholes = {name: start + call(body) + call(body, stream=3) for name, body in requests.items() if len(body) < 2000}
    names = sorted(wholes)
    for index in range(number):
        name = chance.choice(names)
        how, stream = mutate(bytearray(wholes[name]), wholes[chance.choice(names)], chance)
        yield f"{index}:{how}:{name}", _PREFACE + stream


def make_odd_streams() -> Iterator[tuple[str, bytes]]:
    """Calls that are odd in one thing."""
    start, body = _PREFACE + frame(_SETTINGS, 0, 0, b""), make_requests()["raw"]
    yield "a path that is no UTF-8", start + call(body, head(b"/a/\xff\xfe"))
    yield "an unknown method", start + call(body, head(b"/inference.GRPCInferenceService/ModelStreamInfer"))
    yield "no path", start + call(body, head(b""))
    yield "metadata that is no text", start + call(body, head(INFER.encode(), (b"authorization", b"Bearer \xff\xfe")))
    yield "metadata with a NUL", start + call(body, head(INFER.encode(), (b"x-request-id", b"a\0b")))
    yield "a timeout that is none", start + call(body, head(INFER.encode(), (b"grpc-timeout", b"soon")))
    yield "a timeout of nothing", start + call(body, head(INFER.encode(), (b"grpc-timeout", b"0n")))
    yield "an unknown encoding", start + call(body, head(INFER.encode(), (b"grpc-encoding", b"rar")))
    yield "no message", start + frame(_HEADERS, _END_HEADERS | _END_STREAM, 1, head())
    yield "half a message", start + call(body)[:-100]
    yield (
        "a message of four gigabytes",
        start + frame(_HEADERS, _END_HEADERS, 1, head()) + frame(_DATA, 1, 1, b"\0" + b"\xff" * 4),
    )
    yield (
        "a packed message that is none",
        start
        + frame(_HEADERS, _END_HEADERS, 1, head(INFER.encode(), (b"grpc-encoding", b"gzip")))
        + frame(_DATA, 1, 1, b"\1\0\0\0\3abc"),
    )
    yield (
        "two messages",
        start
        + frame(_HEADERS, _END_HEADERS, 1, head())
        + frame(_DATA, 1, 1, (b"\0" + struct.pack(">I", len(body)) + body) * 2),
    )
    yield "HTTP/1.1", b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    yield "noise", bytes(range(256)) * 16
    yield "a flood of pings", start + frame(_PING, 0, 0, bytes(8)) * 10_000
    yield "a flood of settings", start + frame(_SETTINGS, 0, 0, b"") * 10_000
    yield (
        "a flood of resets",
        start
        + b"".join(
            frame(_HEADERS, _END_HEADERS, stream, head()) + frame(3, 0, stream, b"\0\0\0\x08")
            for stream in range(1, 4001, 2)
        ),
    )


async def send_streams(service: GrpcSpawned, items: Iterable[tuple[str, bytes]]) -> Sent:
    """Send all streams, each on a connection of its own; it is stuck if the server does not end it."""
    sent, queue = Sent(), iter(items)
    host, _, port = service.address.partition(":")

    async def work() -> None:
        for name, stream in queue:
            started = time.perf_counter()
            reader, writer = await asyncio.open_connection(host, int(port))
            status = "ended"
            try:
                async with asyncio.timeout(_STUCK_S):
                    with contextlib.suppress(OSError):  # a reset is an end, too
                        writer.write(stream)
                        writer.write_eof()
                        while await reader.read(2**16):
                            pass
            except TimeoutError:
                status = "stuck"
                sent.strange.append(f"{name}: not ended within {_STUCK_S} s")
            writer.transport.abort()
            sent.ms.append((time.perf_counter() - started) * 1000)
            sent.statuses[status] += 1
            sent.memory_mb.append(look(service.http.pid).memory_mb)

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    return sent


async def send_and_judge(
    what: str,
    service: GrpcSpawned,
    sending: Coroutine[object, object, Sent],
    *,
    settled: int,
    growth_mb: float = 50,
    slow_ms: float = 2000,
) -> list[Figure]:
    """Hold what comes against the bars; a whole message afterwards must be answered.

    Args:
        what: is sent.
        service: that gets it.
        sending: sends it.
        settled: after so many memory counts.
        growth_mb: that memory may have grown from then to the end.
        slow_ms: that the slowest may take.
    """
    sent = await sending
    total = len(sent.ms)
    after = await send_messages(service, [("whole", make_requests()["raw"])])
    statuses = ", ".join(f"{number} x {status}" for status, number in sorted(sent.statuses.items()))
    alive = is_running(service.http.pid) and after.statuses["OK"] == 1
    figures = [
        Figure(
            f"{what}: the service answers afterwards", f"{'yes' if alive else 'no'}, {total} sent, {statuses}", alive
        ),
        none_of(f"{what}: another status, or stuck", sent.strange, total),
        at_most(f"{what}: the slowest", max(sent.ms), slow_ms, "ms", digits=0),
    ]
    if total > settled:
        grown = sent.memory_mb[-1] - sent.memory_mb[settled]
        figures.append(at_most(f"{what}: memory from number {settled} to the end", grown, growth_mb, "MB"))
    return figures
