"""Around every request: an id, headers for browsers, a last resort for the unexpected, a count, a line in the log."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable, Collection
from typing import TypeAlias

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.gates import API_KEY
from service.api.oip.wire import HEADER_LENGTH
from service.api.parameters import TIMEOUT_HEADER
from service.api.problems import INTERNAL_DETAIL, INTERNAL_ERROR, make_problem, make_problem_of
from service.api.scope import LIMIT_FAULT, REQUEST_FAULT, find_route_path
from service.errors import Draining, Overloaded, RequestError, Unavailable
from service.telemetry.logs import log_request
from service.telemetry.metrics import METHODS, Metrics

logger = logging.getLogger("unihead")

RawHeaders: TypeAlias = tuple[tuple[bytes, bytes], ...]

_NOTHING = "default-src 'none'; frame-ancestors 'none'"
# blob: and data: are pictures that a page has made or been given, and the film of a camera.
_PAGE = (
    f"{_NOTHING}; base-uri 'none'; form-action 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:"
)


def _make(policy: str, cache: str) -> RawHeaders:
    return (
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"x-frame-options", b"DENY"),
        (b"content-security-policy", policy.encode()),
        (b"cache-control", cache.encode()),
    )


# Whatever depends on a picture, a model or a key is nobody's to keep; files are asked for again by their ETag.
_ANSWER = _make(_NOTHING, "no-store")
_FILE = _make(_NOTHING, "no-cache")
_PAGES = dict.fromkeys(("/", "/docs"), _make(_PAGE, "no-cache"))

_MAY_SEND = ("Authorization", API_KEY, "Cache-Control", "X-Request-ID", TIMEOUT_HEADER, HEADER_LENGTH)
_MAY_READ = ("X-Request-ID", "X-Unihead-Cache", "Server-Timing", "Retry-After", "WWW-Authenticate", HEADER_LENGTH)

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# What layers further in note in scope["state"], and what the request's line in the log calls it.
_NOTES = (("cache_result", "cache"), ("problem_code", "code"), ("key_id", "key"), ("trace_id", "trace_id"))


class RequestMiddleware:
    """Plain ASGI, because starlette's BaseHTTPMiddleware costs a task and a queue per request."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        is_vital: Callable[[str], bool] = lambda _: False,
        share: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    ) -> None:
        """Wrap an app.

        Args:
            app: what answers.
            metrics: count the answers.
            is_vital: whether a path, as the router sees it, is answered where there is no place for another connection;
                if not given, none is.
            share: what is put around all that answers, the last resort included, so that pages of other origins may
                read it; if not given, nothing is.
        """
        self._share = share
        self._app = self._share(app)
        self._metrics = metrics
        self._is_vital = is_vital

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on; whatever happens to it, it is answered, counted and logged."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = choose_id(Headers(scope=scope).get("x-request-id", ""))
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}
        path = find_route_path(scope)
        added = ((b"x-request-id", request_id.encode()), *find_security_headers(path))
        status: int | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        try:
            fault = scope["state"].get(REQUEST_FAULT)
            if fault is None and LIMIT_FAULT in scope["state"] and not self._is_vital(path):
                fault = scope["state"][LIMIT_FAULT]
            app = self._app if fault is None else self._refuse(scope, fault)
            await app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            if status is None:
                detail = "the service stops and cannot wait for this answer any longer; ask another one"
                problem = make_problem(scope, Draining.status, Draining.code, detail, {"Retry-After": "1"})
                await self._share(problem)(scope, receive, send_with_headers)
            raise
        except Exception:  # whatever a route did not foresee: no trace of it may reach a client
            logger.exception("request %s failed", request_id, extra={"fields": {"request_id": request_id}})
            if status is not None:  # half an answer is out: only closing the connection tells the client
                raise
            problem = make_problem(scope, 500, INTERNAL_ERROR, INTERNAL_DETAIL)
            await self._share(problem)(scope, receive, send_with_headers)
        finally:
            route, method = _route_template(scope), scope["method"]
            self._metrics.count_request(route=route, method=method, status=status or 500, protocol="http")
            fields = {
                "request_id": request_id,
                "method": method if method in METHODS else "other",
                "route": route,
                "status": status,
                "ms": round((time.perf_counter() - started) * 1000, 3),
            }
            notes = scope["state"]
            log_request(fields | {name: notes[note] for note, name in _NOTES if note in notes})

    def _refuse(self, scope: Scope, fault: RequestError | Unavailable) -> ASGIApp:
        """What answers a request that the server cannot read, or has no place for."""
        if isinstance(fault, Overloaded):
            self._metrics.count_refusal(fault.reason)
        return self._share(make_problem_of(scope, fault))


class HeadMiddleware:
    """Plain ASGI, around the routes: HEAD is GET without its content, everywhere (RFC 9110, sec. 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an app."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a HEAD answered as a GET, and keep the content back; pass everything else on."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_without_content(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        # A copy: the server looks at its own scope, and writes no content for a HEAD.
        inner = {**scope, "method": "GET"}
        try:
            await self._app(inner, receive, send_without_content)
        finally:
            scope["route"] = inner.get("route")


def choose_id(proposed: str) -> str:
    """The id that a caller proposes, if it is a plain one, or a new one."""
    if _SANE_ID.fullmatch(proposed):
        return proposed
    # Not from the system's source: asking it releases the GIL, and workers take milliseconds to give it back.
    return f"{random.getrandbits(64):016x}"


def _route_template(scope: Scope) -> str:
    """The path as the route declares it, so that scanners of made-up paths cannot fill the metrics."""
    return getattr(scope.get("route"), "path", "unmatched")


def find_security_headers(path: str) -> RawHeaders:
    """Return the headers for answers of a path, as the router sees it."""
    return _PAGES.get(path) or (_FILE if path.startswith("/static/") else _ANSWER)


def allow_origins(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """Answer the preflights of an app, and let pages of these origins read what it answers."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=_MAY_SEND,
        expose_headers=_MAY_READ,
    )
