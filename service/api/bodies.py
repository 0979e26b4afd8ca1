"""From a request's body to the bytes of its pictures: raw or multipart, counted as they arrive, within a budget."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from service.api.fields.numbers import read_decimal
from service.api.fields.packing import unpack
from service.api.forms import FormReader, is_form
from service.api.scope import BODY_FAULT, body_too_late
from service.errors import BodyTooLarge, ClientDisconnected, MalformedRequest, Overloaded, RequestError
from service.settings import Settings

# What fits into 64 bits, of which parsers in front of us may have made anything.
_MOST_ANNOUNCED = 2**63 - 1
# At once: so much takes a form's parser a millisecond at most.
_FORM_STEP_BYTES = 2**16


class BodyBudget:
    """Counts bytes as they come, not as they are announced: who announces much and sends nothing takes nothing.

    Safe to call from several threads.

    Attributes:
        limit: bytes in all.
        taken: bytes of the requests that are being read or worked on.
    """

    def __init__(self, limit: int, count_refusal: Callable[[], None]) -> None:
        self.limit = limit
        self._count_refusal = count_refusal
        self._lock = threading.Lock()
        self.taken = 0

    @contextlib.contextmanager
    def hold(self) -> Iterator[Held]:
        """One request's share, from its first byte to its answer."""
        held = Held(self)
        try:
            yield held
        finally:
            with self._lock:
                self.taken -= held.number
                held.is_over = True

    def take(self, held: Held, number: int) -> None:
        """Count some more bytes of a request.

        Raises:
            Overloaded: all together would be more than the limit.
            ClientDisconnected: the request is over, and a thread still works for it.
        """
        with self._lock:
            if held.is_over:
                raise ClientDisconnected("nobody waits for this body any more")
            if self.taken + number <= self.limit:
                self.taken += number
                held.number += number
                return
        self._count_refusal()
        sentence = f"the bodies under way have {self.taken} bytes; {self.limit} are the limit"
        raise Overloaded(sentence, reason="bodies", retry_after_s=1)


class Held:
    """What one request holds.

    Attributes:
        number: bytes.
        is_over: it has given them back, and takes no more.
    """

    __slots__ = ("_budget", "is_over", "number")

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.number = 0
        self.is_over = False

    def take(self, number: int) -> None:
        """Hold more.

        Raises:
            Overloaded, ClientDisconnected: see `BodyBudget.take`.
        """
        self._budget.take(self, number)


@dataclass(frozen=True, slots=True)
class Sent:
    """What a body has in it.

    Attributes:
        pictures: one or more; one of several may be empty.
        fields: of a form, name and value of each that is no picture.
    """

    pictures: list[bytes]
    fields: list[tuple[str, str]]


async def read_pictures(request: Request, held: Held, settings: Settings, *, most: int = 1) -> Sent:
    """Take the pictures out of a request; any declared type but multipart/form-data means that the body is the picture.

    Args:
        request: its body has not been read yet, and comes in no content coding.
        held: the bytes that the request holds.
        settings: limits; those of the body hold for all pictures together, and for the envelope too.
        most: pictures in a form.

    Raises:
        BodyTooLarge, RequestTimeout, Overloaded: see `read_body`.
        MalformedRequest: the form cannot be read, or has no `file` or more than `most`; or the client disconnected.
        EmptyBody: the form's only `file` has no bytes.
    """
    content_type = request.headers.get("content-type", "")
    if not is_form(content_type):
        return Sent([await read_body(request, held, settings)], [])
    form = FormReader(content_type, most=most)
    await _receive(request, held, settings, form.write)
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
                held.take(len(piece))
                take(piece)
    except ClientDisconnect as error:
        raise MalformedRequest("the connection was closed before the whole body had come") from error
    except TimeoutError as error:
        raise body_too_late(settings.body_timeout_s) from error
    fault: RequestError | None = state.get(BODY_FAULT)
    if fault is not None:
        raise fault
