"""What stands before the routes, and asks their table about a request: authentication, tracing, load shedding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.forms import is_form
from service.api.key_ring import KeyRing
from service.api.problems import document_problems, make_problem_of
from service.api.router import FormKeyRoute, PictureRequest, RouteTable
from service.api.scope import KEY_IN_FORM, OIP_ROOT, SHARE, VISION_ROOT, find_route_path
from service.api.state import ServiceState
from service.errors import Overloaded, Unauthorized

API_KEY = "X-API-Key"
KEY_FIELD = "api_key"
_BLANKS = b" \t"  # before and behind a header's value they are not of it (RFC 9110, sec. 5.5)
KEY_DETAIL = f"bring one key that is in force, once: `Authorization: Bearer KEY` or `{API_KEY}: KEY`"


@dataclass(frozen=True, slots=True)
class AuthMiddleware:
    """Plain ASGI, in front of everything that costs more than a hash.

    Attributes:
        app: what is guarded.
        routes: of the app.
        ring: the keys in force, looked up at every request.
        count: told of every request that is refused here.
        form_keys: whether a request that presents nothing goes on to a `FormKeyRoute`, which looks into its form.
    """

    app: ASGIApp
    routes: RouteTable
    ring: KeyRing
    count: Callable[[], None]
    form_keys: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if its path is open or its key is in force; `key_id` in its state then says which."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and self.routes.is_open(find_route_path(scope))):
            await self.app(scope, receive, send)
            return
        presented = find_presented_key(scope["headers"])
        key_id = None if presented is None else self.ring.keys.find(presented)
        if key_id is not None:
            scope.setdefault("state", {})["key_id"] = key_id
            await self.app(scope, receive, send)
            return
        route = self.routes.find_picture_route(scope)
        if self.form_keys and isinstance(route, FormKeyRoute) and _may_bring_key_in_form(scope["headers"]):
            scope.setdefault("state", {})[KEY_IN_FORM] = True
            await self.app(scope, receive, send)
            return
        self.count()
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        scope["route"] = route  # for the count of answers
        await make_problem_of(scope, Unauthorized(KEY_DETAIL))(scope, receive, send)


def find_presented_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return what a request presents as its key; None if it presents nothing, or several things."""
    presented = _list_presented(headers)
    return presented[0] if len(presented) == 1 else None


def _list_presented(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    presented: list[bytes] = []
    for name, value in headers:
        if name == b"x-api-key":
            presented.append(value.strip(_BLANKS))
        elif name == b"authorization":
            scheme, _, key = value.partition(b" ")
            presented.append(key.strip(_BLANKS) if scheme.lower() == b"bearer" else b"")
    return presented


def _may_bring_key_in_form(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a request presents nothing, and has a form that can be read without unpacking it first."""
    first = dict(reversed(headers))
    content_type = first.get(b"content-type", b"").decode("latin-1")
    return is_form(content_type) and b"content-encoding" not in first and not _list_presented(headers)


def require_form_key(request: PictureRequest, fields: Iterable[tuple[str, str]]) -> None:
    """Let a request on if its form has one key that is in force; its state then says which, as of any other.

    Args:
        request: that has come past `AuthMiddleware` without a key.
        fields: of its form, name and value of each that is no picture.

    Raises:
        Unauthorized: it has none, or more than one.
    """
    service, presented = request.service, [value for name, value in fields if name == KEY_FIELD]
    key_id = service.keys.keys.find(presented[0].encode()) if service.keys and len(presented) == 1 else None
    if key_id is None:
        service.metrics.unauthorized_requests.inc()
        raise Unauthorized(f"{KEY_DETAIL}, or the form field `{KEY_FIELD}`")
    request.scope["state"]["key_id"] = key_id


def describe_keys(document: dict[str, Any], routes: RouteTable) -> None:
    """Say in an OpenAPI document which operations need a key, and how it is brought."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": API_KEY},
    }
    document["security"] = [{"bearer": []}, {"header": []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if routes.is_open(path):
                operation["security"] = []
                continue
            refusal = dict(document_problems(Unauthorized.status)[Unauthorized.status])
            if path.startswith((OIP_ROOT, VISION_ROOT)):
                refusal["content"] = operation["responses"]["400"]["content"]
            operation["responses"][str(Unauthorized.status)] = refusal


@dataclass(frozen=True, slots=True)
class TracingMiddleware:
    """Plain ASGI, inside `RequestMiddleware`, around all else that answers pictures; there only when tracing is on."""

    app: ASGIApp
    routes: RouteTable
    state: ServiceState

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Trace one request about pictures; pass everything else on."""
        tracing, route = self.state.tracing, self.routes.find_picture_route(scope)
        trace = None
        if tracing is not None and route is not None:
            trace = tracing.begin(
                f"{scope['method']} {route.path}",
                # No url.path or url.query: what callers write into them is not ours to hand on.
                {"http.request.method": scope["method"], "http.route": route.path, "url.scheme": scope["scheme"]},
                request_id=scope["state"]["request_id"],
                headers=scope["headers"],
            )
        if trace is None:
            await self.app(scope, receive, send)
            return
        scope["state"] |= {"trace": trace, "trace_id": trace.trace_id}
        status: int | None = None
        failure: BaseException | None = None

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except BaseException as error:
            failure = error
            raise
        finally:
            code, status = scope["state"].get("problem_code"), status or 500
            kind = None
            if failure is not None:
                kind = type(failure).__qualname__
            elif status >= 500:  # noqa: PLR2004 - the class of a status; 4xx is no error of a server, say the conventions
                kind = code or str(status)
            trace.finish({"http.response.status_code": status}, problem_code=code, error=kind)


@dataclass(frozen=True, slots=True)
class ShedMiddleware:
    """Plain ASGI, in front of the routes. The server drops the body that nobody has read."""

    app: ASGIApp
    routes: RouteTable
    state: ServiceState

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a picture if most are refused, else open its share of memory; pass everything else on."""
        scheduler, route = self.state.scheduler, self.routes.find_picture_route(scope)
        if route is None:
            await self.app(scope, receive, send)
            return
        if scheduler is not None:
            scope["route"] = route  # for the count of answers; routing replaces it
            try:
                scheduler.shed()
            except Overloaded as error:
                await make_problem_of(scope, error)(scope, receive, send)
                return
        with self.state.memory.open() as share:
            scope["state"][SHARE] = share
            await self.app(scope, receive, send)
