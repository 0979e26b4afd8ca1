"""Refusals of the protocol's own, as requests like any other: the app answers, counts and logs them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.api.scope import REQUEST_FAULT
from service.errors import MalformedRequest, RequestError, Unavailable

if TYPE_CHECKING:
    from uvicorn._types import HTTPScope


def explain_failure(error: httptools.HttpParserError) -> RequestError | Unavailable:
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


def make_refusal_cycle(
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


def _find_path(url: bytes) -> str:
    with contextlib.suppress(httptools.HttpParserError):
        path = httptools.parse_url(url).path
        if path:
            return path.decode("latin-1")
    return "/"
