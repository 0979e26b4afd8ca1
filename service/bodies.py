"""From a request's body to the bytes of one picture: raw or multipart, counted as they arrive."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from service.body_budget import Held
from service.errors import BodyTooLarge, EmptyBody, MalformedRequest, RequestError, RequestTimeout
from service.settings import Settings

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# In a scope's state: the error that ended the body before its end (`service.protocol`).
BODY_FAULT = "body_fault"
# In a scope's state: when the whole body must have come, in seconds of the loop's clock.
BODY_DEADLINE = "body_deadline"
FIELD_NAME = "file"
_MAX_PARTS = 32
# A form of this size is read in a millisecond.
_PARSE_ON_LOOP_BYTES = 2**18


async def read_picture(request: Request, held: Held, settings: Settings) -> bytes:
    """Take the picture out of a request; any declared type but multipart/form-data means that the body is the picture.

    Args:
        request: its body has not been read yet.
        held: the bytes that the request holds.
        settings: limits; those of the body hold for the envelope too.

    Raises:
        BodyTooLarge, RequestTimeout, Overloaded: see `read_body`.
        MalformedRequest: the form cannot be read or has not exactly one `file`; or the client hung up.
        EmptyBody: the form's `file` has no bytes.
    """
    body = await read_body(request, held, settings)
    content_type, options = parse_options_header(request.headers.get("content-type"))
    if content_type != b"multipart/form-data":
        return body
    boundary = options.get(b"boundary", b"")
    if len(body) > _PARSE_ON_LOOP_BYTES:
        return await asyncio.to_thread(extract_file, body, boundary)
    return extract_file(body, boundary)


async def read_body(request: Request, held: Held, settings: Settings) -> bytes:
    """Read a whole body.

    Raises:
        BodyTooLarge: more bytes are announced, or come, than `max_body_bytes`.
        RequestTimeout: it does not come within `body_timeout_s` of the request's first byte.
        Overloaded: all bodies together have too many bytes.
        MalformedRequest: its framing is broken, or the client hung up.
    """
    max_body_bytes = settings.max_body_bytes
    refusal = BodyTooLarge(f"the body has more than {max_body_bytes} bytes, the limit; send a smaller picture")
    announced = request.headers.get("content-length", "")
    # Refused before the first byte is read: curl and others wait for a word before they send much.
    if announced.isdecimal() and int(announced) > max_body_bytes:
        raise refusal
    chunks, total = [], 0
    # The server notes when the request began; where another server runs the app, it begins here.
    deadline = request.scope["state"].get(BODY_DEADLINE) or asyncio.get_running_loop().time() + settings.body_timeout_s
    try:
        async with asyncio.timeout_at(deadline):
            async for chunk in request.stream():
                total += len(chunk)
                if total > max_body_bytes:
                    raise refusal
                held.take(len(chunk))
                chunks.append(chunk)
    except ClientDisconnect as error:
        raise MalformedRequest("the connection was closed before the whole body had come") from error
    except TimeoutError as error:
        raise RequestTimeout(f"the body did not come within {settings.body_timeout_s:g} s") from error
    fault: RequestError | None = request.scope["state"].get(BODY_FAULT)
    if fault is not None:
        raise fault
    return b"".join(chunks)


@dataclass(slots=True)
class _Parts:
    """What the parser's callbacks gather; file names are never looked at."""

    names: list[str] = field(default_factory=list)
    file: bytearray = field(default_factory=bytearray)
    header: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    disposition: bytes = b""
    ended: bool = False

    def on_part_begin(self) -> None:
        self.disposition = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def on_header_end(self) -> None:
        if self.header.lower() == b"content-disposition":
            self.disposition = bytes(self.value)
        self.header.clear()
        self.value.clear()

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self.disposition)
        self.names.append(options.get(b"name", b"").decode("utf-8", "replace"))
        if len(self.names) > _MAX_PARTS:
            raise MalformedRequest(f"the form has more than {_MAX_PARTS} parts; send one, `{FIELD_NAME}`")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self.names[-1] == FIELD_NAME:
            self.file += data[start:end]

    def on_end(self) -> None:
        self.ended = True


def extract_file(body: bytes, boundary: bytes) -> bytes:
    """Take the part named `file` out of a multipart/form-data body (RFC 7578), in memory.

    Raises:
        MalformedRequest: no boundary, damaged, or not exactly one part is named `file`.
        EmptyBody: that part has no bytes.
    """
    if not boundary:
        raise MalformedRequest("the content type multipart/form-data names no boundary")
    parts = _Parts()
    callbacks: MultipartCallbacks = {
        "on_part_begin": parts.on_part_begin,
        "on_header_field": parts.on_header_field,
        "on_header_value": parts.on_header_value,
        "on_header_end": parts.on_header_end,
        "on_headers_finished": parts.on_headers_finished,
        "on_part_data": parts.on_part_data,
        "on_end": parts.on_end,
    }
    try:
        parser = MultipartParser(boundary, callbacks)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise MalformedRequest("the multipart form cannot be read; check its boundary and part headers") from error
    if not parts.ended:
        raise MalformedRequest("the multipart form is cut short; its closing boundary is missing")
    files = parts.names.count(FIELD_NAME)
    if files != 1:
        raise MalformedRequest(f"the form has {files} fields named `{FIELD_NAME}`; send exactly one picture in it")
    if not parts.file:
        raise EmptyBody(f"the form's field `{FIELD_NAME}` has no bytes; put the picture's bytes into it")
    return bytes(parts.file)
