from __future__ import annotations

import pytest

from service.bodies import extract_file
from service.errors import EmptyBody, MalformedRequest
from tests.service.fakes import make_form


def test_the_file_is_taken_out_byte_for_byte() -> None:
    picture = bytes(range(256)) * 50 + b"\r\n--xy"
    body, _ = make_form(title=b"hello", file=picture, other=b"x")
    assert extract_file(body, b"xyz") == picture


def test_a_part_without_file_name_is_taken_too() -> None:
    body = b'--b\r\ncontent-disposition: form-data; name="file"\r\nContent-Type: image/png\r\n\r\nabc\r\n--b--\r\n'
    assert extract_file(body, b"b") == b"abc"


@pytest.mark.parametrize(
    ("body", "boundary", "message"),
    [
        (make_form(picture=b"x")[0], b"xyz", "0 fields named `file`"),
        (make_form(file=b"x")[0][:-9] + make_form(file=b"y")[0], b"xyz", "2 fields named `file`"),
        (make_form(file=b"x")[0], b"abc", "cannot be read"),
        (make_form(file=b"x" * 99)[0][:80], b"xyz", "cut short"),
        (b"--xyz\r\nno colon\r\n\r\nx\r\n--xyz--\r\n", b"xyz", "cannot be read"),
        (make_form(file=b"x")[0], b"", "names no boundary"),
        (make_form(file=b"x")[0], b"x" * 999, "cannot be read"),
        (make_form(**{f"n{i}": b"" for i in range(40)})[0], b"xyz", "more than 32 parts"),
        (b"", b"xyz", "cut short"),
    ],
)
def test_forms_that_cannot_be_read_say_why(body: bytes, boundary: bytes, message: str) -> None:
    with pytest.raises(MalformedRequest, match=message):
        extract_file(body, boundary)


def test_an_empty_file_is_an_empty_body() -> None:
    with pytest.raises(EmptyBody):
        extract_file(make_form(file=b"")[0], b"xyz")
