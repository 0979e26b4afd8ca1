"""The pictures in a multipart/form-data body (RFC 7578), taken out piece by piece as the body comes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import EmptyBody, MalformedRequest

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD_NAME = "file"
FORM_TYPE = "multipart/form-data"
# Beside those that may be pictures.
_MAX_OTHER_PARTS = 31
# The parser's warnings are about forms that are refused, each with a line of its own, and quote what is in them.
logging.getLogger("python_multipart").setLevel(logging.ERROR)
# Of one header: the time to read them grows with their square, and file names may have some.
_MAX_SEMICOLONS = 64
# Of a field beside the pictures, which is a query parameter that stands in the form.
_MAX_VALUE_BYTES = 256


def is_form(content_type: str) -> bool:
    """Whether a body of this type is a form; any other is taken for the picture itself."""
    return content_type.partition(";")[0].strip().lower() == FORM_TYPE


class FormReader:
    """Takes the pieces of a body, and gives the bytes of the parts of one name; file names are never looked at.

    Attributes:
        fields: names and values of the other parts, in their order; what they say is not checked here.
    """

    def __init__(self, content_type: str, *, field: str = FIELD_NAME, most: int = 1) -> None:
        """Prepare for a form.

        Args:
            content_type: the request's.
            field: name of the parts that hold pictures.
            most: such parts.

        Raises:
            MalformedRequest: it names no boundary that can be used.
        """
        boundary = _read_option(content_type.encode("latin-1"), b"boundary")
        if not boundary:
            raise MalformedRequest(f"the content type {FORM_TYPE} names no boundary")
        self._field, self._most = field, most
        self._name = ""
        self._parts = 0
        self._files: list[list[bytes]] = []
        self.fields: list[tuple[str, str]] = []
        self._text = bytearray()
        self._header, self._value, self._disposition = bytearray(), bytearray(), b""
        self._ended = False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_header,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise _unreadable() from error

    def write(self, piece: bytes) -> None:
        """Take the next piece of the body.

        Raises:
            MalformedRequest: this is no form, or one with too many parts or headers.
        """
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _unreadable() from error

    def finish(self) -> list[bytes]:
        """Return the files, in their order; the body has ended.

        Raises:
            MalformedRequest: the form is cut short, or no part or too many have that name.
            EmptyBody: the only such part has no bytes.
        """
        if not self._ended:
            raise MalformedRequest("the multipart form is cut short; its closing boundary is missing")
        count = len(self._files)
        if not 1 <= count <= self._most:
            wanted = f"1 to {self._most} pictures, one in each" if self._most > 1 else "exactly one picture in it"
            raise MalformedRequest(f"the form has {count} fields named `{self._field}`; send {wanted}")
        files = []
        while self._files:  # so that no more than one is held twice
            files.append(b"".join(self._files.pop(0)))
        if files == [b""]:
            raise EmptyBody(f"the form's field `{self._field}` has no bytes; put the picture's bytes into it")
        return files

    def _begin_part(self) -> None:
        self._disposition = b""

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        self._parts += 1
        if self._parts > self._most + _MAX_OTHER_PARTS:
            raise MalformedRequest(f"the form has more than {self._parts - 1} parts; send one, `{self._field}`")
        self._name = _read_option(self._disposition, b"name").decode("utf-8", "replace")
        if self._name == self._field:
            self._files.append([])

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == self._field:
            self._files[-1].append(data[start:end])
        elif len(self._text) + end - start > _MAX_VALUE_BYTES:
            raise MalformedRequest(
                f"the form's field {self._name[:80]!r} has more than {_MAX_VALUE_BYTES} bytes; a picture goes into a "
                f"field named `{self._field}`"
            )
        else:
            self._text += data[start:end]

    def _end_part(self) -> None:
        if self._name != self._field:
            self.fields.append((self._name, self._text.decode("utf-8", "replace")))
            self._text.clear()

    def _end(self) -> None:
        self._ended = True


def _read_option(header: bytes, name: bytes) -> bytes:
    """Return one parameter of a header, empty if there is none."""
    if header.count(b";") > _MAX_SEMICOLONS:
        raise MalformedRequest("a header of the form has too many parameters")
    _, options = parse_options_header(header)
    return options.get(name, b"")


def _unreadable() -> MalformedRequest:
    return MalformedRequest("the multipart form cannot be read; check its boundary and part headers")
