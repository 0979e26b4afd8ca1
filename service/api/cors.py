"""Which web pages of other origins may read answers: those that are listed, and then without cookies."""

from __future__ import annotations

from collections.abc import Collection

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from service.api.auth import API_KEY
from service.api.oip.wire import HEADER_LENGTH
from service.api.request_headers import TIMEOUT_HEADER

_MAY_SEND = ("Authorization", API_KEY, "Cache-Control", "X-Request-ID", TIMEOUT_HEADER, HEADER_LENGTH)
_MAY_READ = ("X-Request-ID", "X-Unihead-Cache", "Server-Timing", "Retry-After", "WWW-Authenticate", HEADER_LENGTH)


def allow_origins(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """Answer the preflights of an app, and let pages of these origins read what it answers."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=_MAY_SEND,
        expose_headers=_MAY_READ,
    )
