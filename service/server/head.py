"""What a request's head may say beyond what the parser checks, and how the app answers one that cannot be read."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.api.scope import BODY_FAULT, REQUEST_FAULT
from service.errors import HeaderTooLarge, MalformedRequest, RequestError, Unavailable

if TYPE_CHECKING:
    from uvicorn._types import HTTPScope

HeaderPair: TypeAlias = tuple[bytes, bytes]

MAX_HEADERS = 100
_FRAMING = frozenset({b"host", b"transfer-encoding"})
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")


def check_head(method: bytes, url: bytes, version: str, headers: Sequence[HeaderPair]) -> None:
    """Check that no two readers may understand a head differently (RFC 9112, sec. 3.2, 6.1 and 11.2).

    llhttp rejects by itself: Content-Length that is no number, repeated, or beside Transfer-Encoding; an encoding
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


def build_size_error(limit: int) -> HeaderTooLarge:
    """Build the error of a head that is too large."""
    return HeaderTooLarge(f"the header has more than {limit} bytes or {MAX_HEADERS} fields, the limits")


def write_without_upgrade(method: bytes, url: bytes, version: str, headers: Iterable[HeaderPair]) -> bytes:
    """Write a head once more, without its wish for another protocol, which a server may ignore (RFC 9110, sec. 7.8).

    With that wish the parser takes the body for the other protocol's; Java's client and `curl --http2` have it in every
    request.
    """
    kept = b"".join(b"%b: %b\r\n" % pair for pair in headers if pair[0] != b"upgrade")
    return b"%b %b HTTP/%b\r\n%b\r\n" % (method, url, version.encode(), kept)


def explain_parser_error(error: httptools.HttpParserError) -> RequestError | Unavailable:
    """Say in our words why the parser stopped.

    Raises:
        Exception: a callback failed for a reason that is our fault, and this is it.
    """
    cause = error.__context__  # what a callback has raised
    if cause is None:
        return MalformedRequest(f"the request is no well-formed HTTP/1.1: {error}")
    if isinstance(cause, httptools.HttpParserError | UnicodeDecodeError):
        return MalformedRequest("the request line names no path that can be read")
    if isinstance(cause, RequestError | Unavailable):
        return cause
    raise cause


def build_error_cycle(
    protocol: HttpToolsProtocol, scope: HTTPScope, url: bytes, error: RequestError | Unavailable
) -> RequestResponseCycle:
    """Build what answers with an error, and then closes the connection.

    Args:
        protocol: of the connection.
        scope: of the request, as far as it is known.
        url: its target, perhaps cut short; clients of the Open Inference Protocol are told in their own words.
        error: what is answered.
    """
    path = _find_path(url)
    scope.setdefault("method", "")
    scope.update({"path": path, "raw_path": path.encode("latin-1"), "query_string": b""})
    scope["state"][REQUEST_FAULT] = error
    cycle = RequestResponseCycle(
        scope=scope,
        transport=protocol.transport,
        flow=protocol.flow,
        logger=protocol.logger,
        access_logger=protocol.access_logger,
        access_log=protocol.access_log,
        default_headers=protocol.server_state.default_headers,
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=False,
        on_response=protocol.on_response_complete,
    )
    cycle.more_body = False
    return cycle


def fail_body(cycle: RequestResponseCycle, error: RequestError | Unavailable) -> None:
    """End the body of a request that is being answered with an error, and then the connection."""
    cycle.scope["state"][BODY_FAULT] = error
    cycle.more_body = cycle.keep_alive = False
    cycle.message_event.set()


def _find_path(url: bytes) -> str:
    with contextlib.suppress(httptools.HttpParserError):
        path = httptools.parse_url(url).path
        if path:
            return path.decode("latin-1")
    return "/"
