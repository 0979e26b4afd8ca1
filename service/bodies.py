"""From a request's body to the bytes of its pictures: raw or multipart, counted as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request

from service.body_budget import Held
from service.errors import BodyTooLarge, MalformedRequest, RequestError, RequestTimeout
from service.forms import FormReader, is_form
from service.settings import Settings

# In a scope's state: the error that ended the body before its end (`service.protocol`).
BODY_FAULT = "body_fault"
# In a scope's state: when the whole body must have come, in seconds of the loop's clock.
BODY_DEADLINE = "body_deadline"


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
    total = 0
    # The server notes when the request began; where another server runs the app, it begins here.
    deadline = request.scope["state"].get(BODY_DEADLINE) or asyncio.get_running_loop().time() + settings.body_timeout_s
    try:
        async with asyncio.timeout_at(deadline):
            async for piece in request.stream():
                total += len(piece)
                if total > max_body_bytes:
                    raise refusal
                held.take(len(piece))
                take(piece)
    except ClientDisconnect as error:
        raise MalformedRequest("the connection was closed before the whole body had come") from error
    except TimeoutError as error:
        raise RequestTimeout(f"the body did not come within {settings.body_timeout_s:g} s") from error
    fault: RequestError | None = request.scope["state"].get(BODY_FAULT)
    if fault is not None:
        raise fault
