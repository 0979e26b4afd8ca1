from __future__ import annotations

import gzip
import os
import time
import zlib

import pytest

from service.api.fields.packing import pack, require_packing, unpack
from service.errors import BodyTooLarge, MalformedRequest

PLAIN = os.urandom(100_000) + bytes(300_000) + os.urandom(100_000)


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
@pytest.mark.parametrize("plain", [PLAIN, b"", b"x", bytes(65536), bytes(2 * 65536), os.urandom(65536)])
def test_what_was_packed_comes_out_again(packing: str, plain: bytes) -> None:
    assert unpack(pack(plain, packing), packing, len(plain), lambda _: None) == plain


def test_both_are_what_others_write_and_read() -> None:
    assert gzip.decompress(pack(PLAIN, "gzip")) == zlib.decompress(pack(PLAIN, "deflate")) == PLAIN
    assert unpack(gzip.compress(PLAIN), "gzip", len(PLAIN), lambda _: None) == PLAIN


def test_a_bomb_ends_at_the_limit() -> None:
    counted: list[int] = []
    with pytest.raises(BodyTooLarge, match="more than 200000 bytes when unpacked"):
        unpack(gzip.compress(bytes(10**8)), "gzip", 200_000, counted.append)
    assert sum(counted) <= 200_000
    assert max(counted) <= 2**16


def test_each_step_is_counted_and_whoever_counts_may_end_it() -> None:
    def refuse_the_third(_: int) -> None:
        counted.append(_)
        if len(counted) == 3:
            raise MalformedRequest("enough")

    counted: list[int] = []
    with pytest.raises(MalformedRequest, match="enough"):
        unpack(gzip.compress(bytes(10**7)), "gzip", 10**7, refuse_the_third)
    assert sum(counted) <= 3 * 2**16


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "cut short"),
        (gzip.compress(PLAIN)[:-9], "cut short"),
        (gzip.compress(PLAIN)[:100_000], "cut short"),
        (b"no gzip", "no gzip data"),
        (zlib.compress(PLAIN), "no gzip data"),
        (gzip.compress(PLAIN)[:-8] + bytes(8), "no gzip data"),
        (gzip.compress(PLAIN) + b"x", "something follows"),
        (gzip.compress(bytes(65536)) + b"x" * 70_000, "something follows"),
        (gzip.compress(PLAIN) * 2, "something follows"),
    ],
)
def test_what_is_no_gzip_or_more_than_one_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(MalformedRequest, match=words):
        unpack(body, "gzip", 10**7, lambda _: None)


def test_time_grows_with_the_bytes_and_not_with_their_square() -> None:
    packed = gzip.compress(os.urandom(10**7), 1)
    started = time.process_time()
    unpack(packed, "gzip", 10**7, lambda _: None)
    assert time.process_time() - started < 0.5


def test_other_codings_are_named() -> None:
    require_packing("")
    require_packing("gzip")
    with pytest.raises(MalformedRequest, match="'br' is not known; send gzip, deflate or none"):
        require_packing("br")
