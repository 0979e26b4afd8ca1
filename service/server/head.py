"""What a request's head may say about the message that it begins, beyond what the parser refuses by itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import httptools

from service.errors import HeaderTooLarge, MalformedRequest

HeaderPair: TypeAlias = tuple[bytes, bytes]

MAX_HEADERS = 100
_FRAMING = frozenset({b"host", b"transfer-encoding"})
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")


def check_head(method: bytes, url: bytes, version: str, headers: Sequence[HeaderPair]) -> None:
    """Refuse a head that two readers may understand differently (RFC 9112, sec. 3.2, 6.1 and 11.2).

    llhttp has refused already: Content-Length that is no number, repeated, or beside Transfer-Encoding; an encoding
    after `chunked`; blanks before a colon, folded lines, line ends without CR, control characters.

    Args:
        method: as it came.
        url: the target, as it came.
        version: `1.1`, as it came.
        headers: names in lower case.

    Raises:
        MalformedRequest: says what is wrong.
    """
    framing = [pair for pair in headers if pair[0] in _FRAMING]
    # One Host and nothing else is what nearly all requests have.
    plain = version == "1.1" and len(framing) == 1 and framing[0][0] == b"host"
    host = framing[0][1] if plain else _check_framing(version, framing)
    if not _HOST.fullmatch(host):
        raise MalformedRequest("the Host header is no host and port")
    if method == b"CONNECT":
        raise MalformedRequest("CONNECT is for proxies, and this is none")
    if not url.startswith(b"/") and not httptools.parse_url(url).path:
        raise MalformedRequest("the request's first line names no path")


def _check_framing(version: str, framing: Iterable[HeaderPair]) -> bytes:
    if version not in {"1.0", "1.1"}:
        raise MalformedRequest(f"this is HTTP/{version}; HTTP/1.1 and 1.0 are spoken here")
    hosts = [value for name, value in framing if name == b"host"]
    if len(hosts) > 1 or (version == "1.1" and not hosts):
        raise MalformedRequest(f"the request has {len(hosts)} Host headers; HTTP/1.1 wants exactly one")
    encodings = [value for name, value in framing if name == b"transfer-encoding"]
    if encodings and version == "1.0":
        raise MalformedRequest("HTTP/1.0 has no Transfer-Encoding")
    if any(value.strip().lower() != b"chunked" for value in encodings):
        raise MalformedRequest("the only Transfer-Encoding that is read here is chunked")
    return hosts[0] if hosts else b""


def count_head_bytes(url: bytes, headers: Iterable[HeaderPair]) -> int:
    """Bytes of a head, its line ends included; method and version count as nothing."""
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)


def refuse_size(limit: int) -> HeaderTooLarge:
    """Say that a head is too large."""
    return HeaderTooLarge(f"the header has more than {limit} bytes or {MAX_HEADERS} fields, the limits")


def write_without_upgrade(method: bytes, url: bytes, version: str, headers: Iterable[HeaderPair]) -> bytes:
    """Write a head once more, without its wish for another protocol, which a server may ignore (RFC 9110, sec. 7.8).

    With that wish the parser takes the body for the other protocol's; Java's client and `curl --http2` have it in every
    request.
    """
    kept = b"".join(b"%b: %b\r\n" % pair for pair in headers if pair[0] != b"upgrade")
    return b"%b %b HTTP/%b\r\n%b\r\n" % (method, url, version.encode(), kept)
