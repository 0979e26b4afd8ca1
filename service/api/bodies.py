"""From a request's body to the bytes of its pictures: raw or multipart, counted as they arrive, within a budget."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from starlette.requests import ClientDisconnect, Request

from service.api.forms import FormReader, is_form
from service.api.scope import BODY_FAULT, body_too_late
from service.errors import BodyTooLarge, MalformedRequest, Overloaded, RequestError
from service.settings import Settings


class BodyBudget:
    """Counts bytes as they come, not as they are announced: who announces much and sends nothing takes nothing.

    Attributes:
        limit: bytes in all.
        taken: bytes of the requests that are being read or worked on.
    """

    def __init__(self, limit: int, count_refusal: Callable[[], None]) -> None:
        self.limit = limit
        self._count_refusal = count_refusal
        self.taken = 0

    @contextlib.contextmanager
    def hold(self) -> Iterator[Held]:
        """One request's share, from its first byte to its answer."""
        held = Held(self)
        try:
            yield held
        finally:
            self.taken -= held.number

    def take(self, number: int) -> None:
        """Count some more bytes.

        Raises:
            Overloaded: they would be more than the limit.
        """
        if self.taken + number > self.limit:
            self._count_refusal()
            sentence = f"the bodies under way have {self.taken} bytes; {self.limit} are the limit"
            raise Overloaded(sentence, reason="bodies", retry_after_s=1)
        self.taken += number


class Held:
    """What one request holds.

    Attributes:
        number: bytes.
    """

    __slots__ = ("_budget", "number")

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.number = 0

    def take(self, number: int) -> None:
        """Hold more.

        Raises:
            Overloaded: all together would hold more than the limit.
        """
        self._budget.take(number)
        self.number += number


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
        MalformedRequest: the form cannot be read, or has no `file` or more than `most`; or the client disconnected.
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
        MalformedRequest: its framing is broken, or the client disconnected.
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
        raise body_too_late(settings.body_timeout_s) from error
    fault: RequestError | None = state.get(BODY_FAULT)
    if fault is not None:
        raise fault
