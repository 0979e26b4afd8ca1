"""From a request's body to the bytes of its pictures: raw or multipart, counted as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request

from service.api.body_budget import Held
from service.api.forms import FormReader, is_form
from service.errors import BodyTooLarge, MalformedRequest, RequestError, RequestTimeout
from service.settings import Settings

# In a scope's state: the error that ended the body before its end, None until then. Who sets it also looks at the clock
# (`service.server.protocol`); where another server runs the app, nobody does.
BODY_FAULT = "body_fault"


async def read_pictures(request: Request, held: Held, settings: Settings, *, most: int = 1) -> list[bytes]:
    """Take the pictures out of a request; any declared type but multipart/form-data means that the body is the picture.

    Args:
        request: its body has not been read yet.
        held: the bytes that the request holds.
        settings: limits; those of the body hold for all pictures together, and for the envelope too.
        most: pictures in a form.

    Returns:
        One or more; one of several may be empty.

    Raises:
        BodyTooLarge, RequestTimeout, Overloaded: see `read_body`.
        MalformedRequest: the form cannot be read, or has no `file` or more than `most`; or the client hung up.
        EmptyBody: the form's only `file` has no bytes.
    """
    content_type = request.headers.get("content-type", "")
    if not is_form(content_type):
        return [await read_body(request, held, settings)]
    form = FormReader(content_type, most=most)
    await _receive(request, held, settings, form.write)
    return form.finish()


async def read_body(request: Request, held: Held, settings: Settings) -> bytes:
    """Read a whole body.

    Raises:
        BodyTooLarge: more bytes are announced, or come, than `max_body_bytes`.
        RequestTimeout: it does not come within `body_timeout_s` of the request's first byte.
        Overloaded: all bodies together have too many bytes.
        MalformedRequest: its framing is broken, or the client hung up.
    """
    pieces: list[bytes] = []
    await _receive(request, held, settings, pieces.append)
    return b"".join(pieces)


async def _receive(request: Request, held: Held, settings: Settings, take: Callable[[bytes], None]) -> None:
    """Hand each piece of a body over as it comes."""
    max_body_bytes = settings.max_body_bytes
    refusal = BodyTooLarge(f"the body has more than {max_body_bytes} bytes, the limit; send a smaller picture")
    announced = request.headers.get("content-length", "")
    # Refused before the first byte is read: curl and others wait for a word before they send much.
    if announced.isdecimal() and int(announced) > max_body_bytes:
        raise refusal
    total, state = 0, request.scope["state"]
    try:
        async with asyncio.timeout(None if BODY_FAULT in state else settings.body_timeout_s):
            async for piece in request.stream():
                total += len(piece)
                if total > max_body_bytes:
                    raise refusal
                held.take(len(piece))
                take(piece)
    except ClientDisconnect as error:
        raise MalformedRequest("the connection was closed before the whole body had come") from error
    except TimeoutError as error:
        raise body_too_late(settings) from error
    fault: RequestError | None = state.get(BODY_FAULT)
    if fault is not None:
        raise fault


def body_too_late(settings: Settings) -> RequestTimeout:
    """Build the error of a body that does not come in time."""
    return RequestTimeout(f"the body did not come within {settings.body_timeout_s:g} s")
