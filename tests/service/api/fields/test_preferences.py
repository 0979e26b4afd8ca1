from __future__ import annotations

import time

import pytest

from service.api.fields.preferences import choose_packing, find_packing, prefers_png
from service.api.parameters import wants_fresh


@pytest.mark.parametrize(
    "accept",
    [
        "image/png",
        "IMAGE/PNG",
        "image/*",
        "image/png, */*",
        "image/png,application/json;q=0.9",
        "application/json;q=0.2, image/*;q=0.3",
        "image/png;q=0.5, text/html",
        "image/png ; q=1.0 , */* ; q=0.1",
        "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
        "application/json;q=0, */*",
    ],
)
def test_png_is_preferred(accept: str) -> None:
    assert prefers_png(accept)


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "*/*",
        "application/json",
        "application/*",
        "text/html",
        "image/jpeg",
        "image/png;q=0",
        "image/png;q=0, */*",
        "image/png;q=0.4, */*;q=0.5",
        "application/json, image/png",
        "image/png, application/json",
        "image/png;q=0.5, application/json;q=0.5",
        "image/*, application/json",
        "image/png;q=high",
        "image/png;q=2",
        "image",
        ";;,,/",
    ],
)
def test_json_is_the_answer(accept: str | None) -> None:
    assert not prefers_png(accept)


@pytest.mark.parametrize(
    ("field", "packing"),
    [
        ("", ""),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip", "gzip"),
        ("deflate, gzip;q=0.5", "deflate"),
        ("br, gzip ; q=0.3", "gzip"),
        ("gzip;q=0", ""),
        ("gzip;q=0.000, deflate;q=0", ""),
        ("identity", ""),
        ("identity, gzip;q=0.5", ""),
        ("identity;q=0.2, gzip;q=0.5", "gzip"),
        ("identity;q=0, deflate;q=0.001", "deflate"),
        ("*", "gzip"),
        ("*;q=0", ""),
        ("gzip;q=0, *;q=0.1", "deflate"),
        ("gzip;q=2", ""),
        ("gzip;q=1.0000", ""),
        ("gzip;q=\u0661", ""),
        (",,, ,gzip", "gzip"),
        ("gzipped", ""),
    ],
)
def test_an_answer_is_packed_as_its_client_prefers(field: str, packing: str) -> None:
    assert choose_packing(field) == packing


@pytest.mark.parametrize(
    ("lines", "packing"),
    [
        ([], ""),
        ([""], ""),
        (["identity"], ""),
        (["gzip"], "gzip"),
        (["X-GZip"], "gzip"),
        (["identity, gzip"], "gzip"),
        (["gzip", "gzip"], "gzip, gzip"),
        (["gzip, br"], "gzip, br"),
    ],
)
def test_a_body_comes_in_one_coding_or_in_one_that_is_not_known(lines: list[str], packing: str) -> None:
    assert find_packing(lines) == packing


@pytest.mark.parametrize("field", ["," * 31_000, "a/b," * 7500, "image/png" + ";" * 30_000, "a/b;q=1," * 3800])
def test_a_header_as_long_as_any_takes_a_millisecond_or_two(field: str) -> None:
    started = time.process_time()
    prefers_png(field)
    choose_packing(field)
    wants_fresh(field)
    find_packing([field])
    assert time.process_time() - started < 0.01


def test_what_is_cut_off_is_not_taken_for_something_else() -> None:
    far = "a/b," * 1021
    assert prefers_png(f"{far}image/png")
    assert not prefers_png(f"{far}image/png;q=0.5,application/json")
    assert choose_packing("," * 4090 + "gzip;q=0") == ""
