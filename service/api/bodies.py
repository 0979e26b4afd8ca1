"""From a request's body to the bytes of its pictures: raw or multipart, counted as they arrive, not as announced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from starlette.requests import ClientDisconnect, Request

from service.api.fields.numbers import read_decimal
from service.api.fields.packing import estimate_unpacking, require_packing, unpack
from service.api.fields.preferences import find_packing
from service.api.forms import FormReader, is_form
from service.api.gates import require_form_key
from service.api.respond import Question, find_owner, run_beside
from service.api.router import PictureRequest
from service.api.scope import BODY_FAULT, KEY_IN_FORM, body_too_late
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


async def read_pictures(request: PictureRequest, question: Question, *, most: int = 1) -> tuple[Sent, Question]:
    """Take the pictures out of a request; any declared type but multipart/form-data means that the body is the picture.

    Args:
        request: its body has not been read yet.
        question: that it asks; a content coding is undone by a worker, in the queue, within its time.
        most: pictures in a form.

    Returns:
        What was sent, and the question with what is left of its time.

    Raises:
        Unauthorized: its key is to be in the form, and is not.
        BodyTooLarge, RequestTimeout, Overloaded: see `read_body`.
        MalformedRequest: the form cannot be read, or has no field of the name wanted or more than `most`; or the client
            disconnected.
        EmptyBody: the form's only such field has no bytes.
        RequestError, Unavailable, ClientDisconnected: see `run_beside`.
    """
    headers, share, settings = request.headers, request.share, request.service.settings
    content_type, packing = headers.get("content-type", ""), find_packing(headers.getlist("content-encoding"))
    require_packing(packing)
    if packing:
        body, limit = await read_body(request, share, settings), settings.max_body_bytes
        unpacking = partial(
            _unpack_pictures, body, packing, content_type, limit, share.take_body, field=question.field, most=most
        )
        return await run_beside(request, question, unpacking, work=estimate_unpacking(len(body), limit))
    if not is_form(content_type):
        return Sent([await read_body(request, share, settings)], []), question
    form = FormReader(content_type, field=question.field, most=most)
    await _receive(request, share, settings, form.write)
    if KEY_IN_FORM in request.scope["state"]:
        require_form_key(request, form.fields)
        question = replace(question, owner=find_owner(request))
    return Sent(form.finish(), form.fields), question


def _unpack_pictures(
    body: bytes, packing: str, content_type: str, limit: int, count: Callable[[int], None], *, field: str, most: int
) -> Sent:
    """Take the pictures out of a body that came in a content coding; to be called in a thread.

    Args:
        body: as it came.
        packing: its coding.
        content_type: of what is in it.
        limit: bytes that may come out.
        count: as `unpack` wants it.
        field: of a form that holds them.
        most: pictures in a form.

    Raises:
        MalformedRequest, BodyTooLarge: see `unpack`; and as in `read_pictures`.
    """
    plain = unpack(body, packing, limit, count)
    if not is_form(content_type):
        return Sent([plain], [])
    form = FormReader(content_type, field=field, most=most)
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
