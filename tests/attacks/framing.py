"""Requests as bytes, well-formed and not, with the status that each must get; a picture is never needed for that."""

from __future__ import annotations

from dataclasses import dataclass

_GET = b"GET /healthz HTTP/1.1\r\n"
_HOST = b"Host: x\r\n"
_POST = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_BAD_TIMEOUT = b"X-Request-Timeout-Ms: soon\r\n"  # 422 where it is read


@dataclass(frozen=True, slots=True)
class Framing:
    """One request.

    Attributes:
        name: what is odd about it.
        sent: its bytes.
        statuses: any of these may be the answer; 0 means that the connection is closed without one.
    """

    name: str
    sent: bytes
    statuses: tuple[int, ...]


def _make(name: str, sent: bytes, *statuses: int) -> Framing:
    return Framing(name, sent, statuses)


FRAMINGS = [
    _make("plain", _GET + _HOST + b"\r\n", 200),
    _make("header names in any case", _GET + b"hOsT: x\r\n\r\n", 200),
    _make("query", b"GET /healthz?x=1 HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    _make("absolute form", b"GET http://x/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    _make("empty lines first", b"\r\n\r\n" + _GET + _HOST + b"\r\n", 200),
    _make("HTTP/1.0 without Host", b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    _make("no Host", _GET + b"\r\n", 400),
    _make("two Hosts", _GET + _HOST + b"Host: y\r\n\r\n", 400),
    _make("Host that is no host", _GET + b"Host: x/../y @z\r\n\r\n", 400),
    _make("empty Host", _GET + b"Host:\r\n\r\n", 200),
    _make("Host with port, IPv6", _GET + b"Host: [::1]:8000\r\n\r\n", 200),
    _make("Host of somebody else, on loopback", _GET + b"Host: evil.example\r\n\r\n", 421),
    _make("a page of somebody else", _POST + b"Origin: https://evil.example\r\nContent-Length: 3\r\n\r\nabc", 403),
    _make("two Hosts, HTTP/1.0", b"GET /healthz HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    _make("no version", b"GET /healthz\r\n\r\n", 400),
    _make("HTTP/0.9", b"GET /healthz HTTP/0.9\r\nHost: x\r\n\r\n", 400),
    _make("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    _make("HTTP/3.1", b"GET /healthz HTTP/3.1\r\nHost: x\r\n\r\n", 400),
    _make("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), 400),
    _make("noise", bytes(range(256)), 400),
    _make("space before colon", _GET + b"Host : x\r\n\r\n", 400),
    _make("folded header", _GET + _HOST + b"X: a\r\n b\r\n\r\n", 400),
    _make("NUL in a header", _GET + _HOST + b"X: a\0b\r\n\r\n", 400),
    _make("bare CR in a header", _GET + _HOST + b"X: a\rb\r\n\r\n", 400),
    _make("bad method characters", b"GE(T /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    _make("unknown method", b"BREW /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400, 405),
    _make("CONNECT", b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400, 404, 405),
    _make("OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 400, 404, 405),
    _make("TRACE", b"TRACE /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    _make("path that is no ASCII", b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", 400, 404),
    _make("traversal", b"GET /static/../../pyproject.toml HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    _make("traversal, escaped", b"GET /static/%2e%2e/%2e%2e/pyproject.toml HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    _make("NUL in the path", b"GET /static/%00 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    _make("no body", _POST + b"\r\n", 400),
    _make("Content-Length 0", _POST + b"Content-Length: 0\r\n\r\n", 400),
    _make("negative length", _POST + b"Content-Length: -1\r\n\r\n", 400),
    _make("length with a plus", _POST + b"Content-Length: +1\r\n\r\nx", 400),
    _make("length in hexadecimal", _POST + b"Content-Length: 0x1\r\n\r\nx", 400),
    _make("length of many digits", _POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n", 400, 413),
    _make("two equal lengths", _POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
    _make("two lengths", _POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
    _make("length list", _POST + b"Content-Length: 1, 1\r\n\r\nx", 400),
    _make("length and chunks", _POST + b"Content-Length: 1\r\n" + _CHUNKED + b"\r\n0\r\n\r\n", 400),
    _make("chunks and length", _POST + _CHUNKED + b"Content-Length: 1\r\n\r\n0\r\n\r\n", 400),
    _make("chunked twice", _POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    _make("unknown encoding", _POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    _make("chunked is not the last", _POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
    _make("an encoding before chunked", _POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    _make("chunked twice, in two headers", _POST + _CHUNKED + _CHUNKED + b"\r\n0\r\n\r\n", 400),
    _make("chunked in HTTP/1.0", b"POST /predict HTTP/1.0\r\n" + _CHUNKED + b"\r\n0\r\n\r\n", 400),
    _make("chunked, empty", _POST + _CHUNKED + b"\r\n0\r\n\r\n", 400),
    _make("chunked, no picture", _POST + _CHUNKED + b"\r\n3\r\nabc\r\n0\r\n\r\n", 415),
    _make("chunk length is no number", _POST + _CHUNKED + b"\r\nzz\r\nabc\r\n", 400),
    _make("chunk without CR", _POST + _CHUNKED + b"\r\n3\nabc\n0\n\n", 400),
    _make("trailer that is a bad header", _POST + _CHUNKED + b"\r\n3\r\nabc\r\n0\r\n" + _BAD_TIMEOUT + b"\r\n", 415),
    _make("chunk longer than it says", _POST + _CHUNKED + b"\r\n1\r\nabc\r\n0\r\n\r\n", 400),
    _make("chunk length too large", _POST + _CHUNKED + b"\r\n" + b"f" * 20 + b"\r\nabc", 400),
    _make("body that is an address", _POST + b"Content-Length: 24\r\n\r\nhttp://169.254.169.254/a\n", 415),
    _make("too long announced", _POST + b"Content-Length: 10000001\r\n\r\n", 413),
    _make("expects to be asked, too long", _POST + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", 413),
    _make("header of 40 kB", _GET + _HOST + b"X: " + b"a" * 40_000 + b"\r\n\r\n", 431),
    _make("path of 40 kB", b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    _make("200 headers", _GET + _HOST + b"X: y\r\n" * 200 + b"\r\n", 431),
    _make("websocket", _GET + _HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 200),
    _make("h2c", _GET + _HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n", 200),
    _make("h2c with a body", _POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc", 415),
]
