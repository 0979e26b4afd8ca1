"""Who may ask: a key is asked for before a byte of the body is read, and before anything is routed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.key_ring import KeyRing
from service.api.paths import find_route_path
from service.api.problems import OIP_ROOT, document_problems, make_problem
from service.api.shedding import find_picture_route
from service.errors import Unauthorized

# The page, and what probes ask; neither tells more than that something serves here.
OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", f"{OIP_ROOT}/health/live", f"{OIP_ROOT}/health/ready"})
OPEN_FOLDER = "/static/"
API_KEY = "X-API-Key"
_DETAIL = f"bring one key that is in force, once: `Authorization: Bearer KEY` or `{API_KEY}: KEY`"


class AuthMiddleware:
    """Plain ASGI, in front of everything that costs more than a hash."""

    def __init__(self, app: ASGIApp, ring: KeyRing, count: Callable[[], None]) -> None:
        """Guard an app.

        Args:
            app: what is behind the door.
            ring: the keys in force, looked up at every request.
            count: told of every request that is refused.
        """
        self._app = app
        self._ring = ring
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if its path is open or its key is in force; `key_id` in its state then says which."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and is_open(find_route_path(scope))):
            await self._app(scope, receive, send)
            return
        presented = find_presented_key(scope["headers"])
        key_id = None if presented is None else self._ring.keys.find(presented)
        if key_id is not None:
            scope.setdefault("state", {})["key_id"] = key_id
            await self._app(scope, receive, send)
            return
        self._count()
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        scope["route"] = SimpleNamespace(path=find_picture_route(scope) or "unmatched")  # for the count of answers
        headers = {"WWW-Authenticate": "Bearer"}
        problem = make_problem(scope, Unauthorized.status, Unauthorized.code, _DETAIL, headers)
        await problem(scope, receive, send)


def is_open(path: str) -> bool:
    """Whether a path, as the router sees it, is answered without a key."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


def find_presented_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return what a request presents as its key; None if it presents nothing, or several things."""
    presented: list[bytes] = []
    for name, value in headers:
        if name == b"x-api-key":
            presented.append(value)
        elif name == b"authorization":
            scheme, _, key = value.partition(b" ")
            presented.append(key.strip(b" ") if scheme.lower() == b"bearer" else b"")
    return presented[0] if len(presented) == 1 else None


def describe_keys(document: dict[str, Any]) -> None:
    """Say in an OpenAPI document which operations need a key, and how it is brought."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": API_KEY},
    }
    document["security"] = [{"bearer": []}, {"header": []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if is_open(path):
                operation["security"] = []
                continue
            refusal = dict(document_problems(Unauthorized.status)[Unauthorized.status])
            if path.startswith(OIP_ROOT):
                refusal["content"] = operation["responses"]["400"]["content"]
            operation["responses"][str(Unauthorized.status)] = refusal
