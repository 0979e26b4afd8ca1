"""Content codings of bodies and answers (RFC 9110, sec. 8.4): unpacked step by step, each counted before the next."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

from service.errors import BodyTooLarge, MalformedRequest

_WINDOWS = {"gzip": 31, "deflate": 15}  # zlib's wbits
_COMPRESSION_LEVEL = 1
# In and out at once; zlib copies what it has not looked at yet, so that large steps would cost their square.
_STEP_BYTES = 2**16
_MOST_RATIO = 1032  # of deflate


def require_packing(packing: str) -> None:
    """Return if a coding can be unpacked, or is none.

    Raises:
        MalformedRequest: it cannot.
    """
    if packing and packing not in _WINDOWS:
        raise MalformedRequest(f"the content encoding {packing[:80]!r} is not known; send gzip, deflate or none")


def unpack(body: bytes, packing: str, limit: int, count: Callable[[int], None]) -> bytes:
    """Undo a content coding; to be called in a thread, for 10 MB take tens of milliseconds without the interpreter.

    Args:
        body: packed.
        packing: gzip or deflate.
        limit: bytes that may come out.
        count: told of each step's bytes, 64 KiB at most, before the next one; may raise, which ends it.

    Raises:
        MalformedRequest: the data is damaged, cut short, or followed by something.
        BodyTooLarge: more than `limit` bytes come out.
    """
    pieces, total = [], 0
    for piece in _unpack_steps(body, packing):
        total += len(piece)
        if total > limit:
            raise BodyTooLarge(f"the body has more than {limit} bytes when unpacked, the limit")
        count(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


def estimate_unpacking(size: int, limit: int) -> int:
    """Bytes of memory that unpacking takes beside what comes out of it: that once more, while its pieces are joined.

    Args:
        size: of the body, packed.
        limit: bytes that may come out.
    """
    return min(limit, size * _MOST_RATIO + _STEP_BYTES)


def _unpack_steps(body: bytes, packing: str) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(_WINDOWS[packing])
    view, place = memoryview(body), 0
    while place < len(body) and not unpacker.eof:
        rest: bytes | memoryview = view[place : place + _STEP_BYTES]
        place += len(rest)
        piece = None
        while rest or piece is None or len(piece) == _STEP_BYTES:  # a full step may have more behind it
            try:
                piece = unpacker.decompress(rest, _STEP_BYTES)
            except zlib.error as error:
                raise MalformedRequest(f"the body is no {packing} data: {error}") from error
            yield piece
            rest = unpacker.unconsumed_tail
    if not unpacker.eof:
        raise MalformedRequest(f"the {packing} data is cut short")
    if unpacker.unused_data or place < len(body):
        raise MalformedRequest(f"something follows the end of the {packing} data")


def pack(content: bytes, packing: str) -> bytes:
    """Apply a content coding."""
    packer = zlib.compressobj(_COMPRESSION_LEVEL, wbits=_WINDOWS[packing])
    return packer.compress(content) + packer.flush()
