"""From a request's body to the bytes of its pictures: raw or multipart, counted as they arrive, not as announced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from service.api.fields.numbers import read_decimal
from service.api.fields.packing import unpack
from service.api.forms import FormReader, is_form
from service.api.scope import BODY_FAULT, body_too_late
from service.errors import BodyTooLarge, MalformedRequest, RequestError
from service.memory import Share
from service.settings import Settings

# What fits into 64 bits, of which parsers in front of us may have made anything.
_MOST_ANNOUNCED = 2**63 - 1
# At once: so much takes a form's parser a millisecond at most.
_FORM_STEP_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class Sent:
    """What a body has in it.

    Attributes:
        pictures: one or more; one of several may be empty.
        fields: of a form, name and value of each that is no picture.
    """

    pictures: list[bytes]
    fields: list[tuple[str, str]]


async def read_pictures(request: Request, share: Share, settings: Settings, *, most: int = 1) -> Sent:
    """Take the pictures out of a request; any declared type but multipart/form-data means that the body is the picture.

    Args:
        request: its body has not been read yet, and comes in no content coding.
        share: what the request holds of the budget of memory.
        settings: limits; those of the body hold for all pictures together, and for the envelope too.
        most: pictures in a form.

    Raises:
        BodyTooLarge, RequestTimeout, Overloaded: see `read_body`.
        MalformedRequest: the form cannot be read, or has no `file` or more than `most`; or the client disconnected.
        EmptyBody: the form's only `file` has no bytes.
    """
    content_type = request.headers.get("content-type", "")
    if not is_form(content_type):
        return Sent([await read_body(request, share, settings)], [])
    form = FormReader(content_type, most=most)
    await _receive(request, share, settings, form.write)
    return Sent(form.finish(), form.fields)


def unpack_pictures(
    body: bytes, packing: str, content_type: str, limit: int, count: Callable[[int], None], *, most: int
) -> Sent:
    """Take the pictures out of a body that came in a content coding; to be called in a thread.

    Args:
        body: as it came.
        packing: its coding.
        content_type: of what is in it.
        limit: bytes that may come out.
        count: as `unpack` wants it.
        most: pictures in a form.

    Raises:
        MalformedRequest, BodyTooLarge: see `unpack`; and as in `read_pictures`.
    """
    plain = unpack(body, packing, limit, count)
    if not is_form(content_type):
        return Sent([plain], [])
    form = FormReader(content_type, most=most)
    for start in range(0, len(plain), _FORM_STEP_BYTES):
        form.write(plain[start : start + _FORM_STEP_BYTES])
    return Sent(form.finish(), form.fields)


async def read_body(request: Request, share: Share, settings: Settings) -> bytes:
    """Read a whole body.

    Raises:
        BodyTooLarge: more bytes are announced, or come, than `max_body_bytes`.
        RequestTimeout: it does not come within `body_timeout_s` of the request's first byte.
        Overloaded: it does not fit into the budget of memory.
        MalformedRequest: its framing is broken, or the client disconnected.
    """
    pieces: list[bytes] = []
    await _receive(request, share, settings, pieces.append)
    return b"".join(pieces)


async def _receive(request: Request, share: Share, settings: Settings, take: Callable[[bytes], None]) -> None:
    """Hand each piece of a body over as it comes."""
    max_body_bytes = settings.max_body_bytes
    refusal = BodyTooLarge(f"the body has more than {max_body_bytes} bytes, the limit; send a smaller picture")
    announced = read_decimal(request.headers.get("content-length", "0"), _MOST_ANNOUNCED)
    if announced is None:
        raise MalformedRequest("the Content-Length is no number that a body could have")
    # Refused before the first byte is read: curl and others wait for a word before they send much.
    if announced > max_body_bytes:
        raise refusal
    total, state = 0, request.scope["state"]
    try:
        async with asyncio.timeout(None if BODY_FAULT in state else settings.body_timeout_s):
            async for piece in request.stream():
                total += len(piece)
                if total > max_body_bytes:
                    raise refusal
                share.take_body(len(piece))
                take(piece)
    except ClientDisconnect as error:
        raise MalformedRequest("the connection was closed before the whole body had come") from error
    except TimeoutError as error:
        raise body_too_late(settings.body_timeout_s) from error
    fault: RequestError | None = state.get(BODY_FAULT)
    if fault is not None:
        raise fault
