from __future__ import annotations

import pytest

from service.errors import MalformedRequest
from service.server.head import HeaderPair, check_head, count_head_bytes, write_without_upgrade

HOST, OTHER_HOST, NO_HOST = (b"host", b"x:8000"), (b"host", b"y"), (b"host", b"x/../y @z")
CHUNKED, PACKED = (b"transfer-encoding", b"Chunked "), (b"transfer-encoding", b"gzip, chunked")


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        ("1.1", [HOST]),
        ("1.1", [(b"host", b"")]),
        ("1.1", [(b"host", b"[::1]:8000")]),
        ("1.1", [CHUNKED, HOST]),
        ("1.0", []),
        ("1.0", [HOST]),
    ],
)
def test_a_head_with_one_meaning_passes(version: str, headers: list[HeaderPair]) -> None:
    check_head(b"GET", b"/readyz", version, headers)


@pytest.mark.parametrize(
    ("version", "headers", "sentence"),
    [
        ("1.1", [], "has 0 Host headers; HTTP/1.1 wants exactly one"),
        ("1.1", [HOST, OTHER_HOST], "has 2 Host headers"),
        ("1.1", [HOST, HOST], "has 2 Host headers"),
        ("1.0", [HOST, OTHER_HOST], "has 2 Host headers"),
        ("1.1", [NO_HOST], "no host and port"),
        ("1.1", [NO_HOST, CHUNKED], "no host and port"),
        ("1.1", [HOST, PACKED], "is chunked"),
        ("1.1", [HOST, CHUNKED, PACKED], "is chunked"),
        ("1.0", [HOST, CHUNKED], "HTTP/1.0 has no Transfer-Encoding"),
        ("2.0", [HOST], "this is HTTP/2.0"),
        ("0.9", [], "this is HTTP/0.9"),
    ],
)
def test_a_head_with_two_meanings_is_refused(version: str, headers: list[HeaderPair], sentence: str) -> None:
    with pytest.raises(MalformedRequest, match=sentence):
        check_head(b"GET", b"/readyz", version, headers)


@pytest.mark.parametrize(
    ("method", "url", "sentence"),
    [(b"CONNECT", b"example.com:443", "CONNECT is for proxies"), (b"GET", b"http://x", "names no path")],
)
def test_a_target_without_a_path_is_refused(method: bytes, url: bytes, sentence: str) -> None:
    with pytest.raises(MalformedRequest, match=sentence):
        check_head(method, url, "1.1", [HOST])
    check_head(b"GET", b"http://x/readyz", "1.1", [HOST])


def test_the_bytes_of_a_head_are_counted_with_its_line_ends() -> None:
    assert count_head_bytes(b"/readyz", [HOST, CHUNKED]) == len(b"/readyz") + len(
        b"host: x:8000\r\ntransfer-encoding: Chunked \r\n"
    )


def test_a_head_is_written_once_more_without_its_wish() -> None:
    headers = [HOST, (b"connection", b"upgrade"), (b"upgrade", b"h2c")]
    assert write_without_upgrade(b"GET", b"/x?y", "1.1", headers) == (
        b"GET /x?y HTTP/1.1\r\nhost: x:8000\r\nconnection: upgrade\r\n\r\n"
    )
