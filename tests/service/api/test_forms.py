from __future__ import annotations

import contextlib
import time

import pytest

from service.api.forms import FormReader, is_form
from service.errors import EmptyBody, MalformedRequest
from tests.service.fakes import make_form

PART = b'--xyz\r\nContent-Disposition: form-data; name="%b"\r\n%b\r\n%b\r\n'
END = b"--xyz--\r\n"
BIG = 9_000_000


def extract_files(body: bytes, boundary: bytes, piece_bytes: int = 65536, *, most: int = 16) -> list[bytes]:
    form = FormReader(f"multipart/form-data; boundary={boundary.decode()}", most=most)
    for start in range(0, len(body), piece_bytes):
        form.write(body[start : start + piece_bytes])
    return form.finish()


def extract_file(body: bytes, boundary: bytes, piece_bytes: int = 65536) -> bytes:
    (file,) = extract_files(body, boundary, piece_bytes, most=1)
    return file


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, 64, 1000, 10**6])
def test_the_pieces_in_which_a_form_comes_make_no_difference(piece_bytes: int) -> None:
    picture = bytes(range(256)) * 4 + b"\r\n--xy\r\n--\r\r\n-" * 20
    body, _ = make_form(title=b"hello\r\n--x", file=picture, other=b"")
    assert extract_file(body, b"xyz", piece_bytes) == picture


def test_a_form_that_cannot_be_read_puts_nothing_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    for body in (
        b"--abc\r\n\r\n",
        b"--xyz\r\nX\x00: y\r\n\r\n",
        b"--xyz\r\nX: y\n\n",
        b"--xyzw\r\n",
        b"--xyz--\r\nsecret",
    ):
        with contextlib.suppress(MalformedRequest):
            extract_file(body, b"xyz")
    assert not caplog.records


@pytest.mark.parametrize(
    ("content_type", "form"),
    [
        ("multipart/form-data; boundary=x", True),
        ("Multipart/Form-Data ;boundary=x", True),
        ("multipart/form-data", True),
        ("multipart/form-data-2; boundary=x", False),
        ("multipart/mixed; boundary=x", False),
        ("image/jpeg", False),
        ("", False),
    ],
)
def test_only_form_data_is_a_form(content_type: str, form: bool) -> None:
    assert is_form(content_type) == form


HOSTILE = {
    "1500 files": PART % (b"file", b"", b"x") * 1500 + END,
    "180,000 parts": PART % (b"n", b"", b"") * 180_000 + END,
    "20 headers": PART % (b"file", b"X: y\r\n" * 20, b"x") + END,
    "a header of 8 MB": PART % (b"file", b"X: " + b"y" * 8_000_000 + b"\r\n", b"x") + END,
    "a header name of 8 MB": PART % (b"file", b"X" * 8_000_000 + b": y\r\n", b"x") + END,
    "a field name of 8 MB": PART % (b"n" * 8_000_000, b"", b"x") + END,
    "parameters in each part": (b"--xyz\r\nContent-Disposition: form-data" + b";" * 4000 + b"\r\n\r\n\r\n") * 31 + END,
    "quotes in each part": PART % (b'\\"' * 2000, b"", b"") * 31 + END,
    "9 MB before the first part": b"\r\n" * (BIG // 2) + PART % (b"file", b"", b"x") + END,
    "9 MB behind the last": PART % (b"file", b"", b"x") + END + b"\r\n" * (BIG // 2),
    "9 MB of line ends": PART % (b"file", b"", b"\r\n" * (BIG // 2)) + END,
    "9 MB of almost boundaries": PART % (b"file", b"", b"\r\n--xy" * (BIG // 6)) + END,
    "9 MB without an end": PART % (b"file", b"", b"\r" * BIG),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_forms_take_a_tenth_of_a_second_at_most(name: str) -> None:
    started = time.process_time()
    with contextlib.suppress(MalformedRequest):
        assert extract_file(HOSTILE[name], b"xyz")
    assert time.process_time() - started < 0.1


def test_a_content_type_of_parameters_alone_is_refused_at_once() -> None:
    started = time.process_time()
    with pytest.raises(MalformedRequest, match="too many parameters"):
        FormReader("multipart/form-data" + ";" * 30_000)
    assert time.process_time() - started < 0.01


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


@pytest.mark.parametrize("piece_bytes", [1, 7, 10**6])
def test_several_files_come_in_their_order_and_one_of_them_may_be_empty(piece_bytes: int) -> None:
    pictures = [b"first\r\n--xy", b"", b"last"]
    body = b"".join(PART % (b"file", b"", one) + PART % (b"title", b"", b"t") for one in pictures) + END
    assert extract_files(body, b"xyz", piece_bytes) == pictures


@pytest.mark.parametrize(
    ("files", "others", "message"),
    [
        (0, 1, "0 fields named `file`; send 1 to 3 pictures"),
        (4, 0, "4 fields named `file`; send 1 to 3 pictures"),
        (3, 32, "more than 34 parts"),
    ],
)
def test_more_files_or_parts_than_allowed_are_refused(files: int, others: int, message: str) -> None:
    body = PART % (b"file", b"", b"x") * files + PART % (b"n", b"", b"") * others + END
    with pytest.raises(MalformedRequest, match=message):
        extract_files(body, b"xyz", most=3)
    assert extract_files(PART % (b"file", b"", b"x") * 3 + PART % (b"n", b"", b"") * 31 + END, b"xyz", most=3)


def test_an_empty_file_alone_is_an_empty_body_where_several_may_be_too() -> None:
    with pytest.raises(EmptyBody):
        extract_files(PART % (b"file", b"", b"") + END, b"xyz")
