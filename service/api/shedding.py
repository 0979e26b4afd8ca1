"""The cheapest answer to a picture that cannot be taken: before its body is read, before it is routed."""

from __future__ import annotations

import re
from types import SimpleNamespace

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.paths import find_route_path
from service.api.problems import make_problem_of
from service.api.state import ServiceState
from service.errors import Overloaded

PICTURE_PATHS = frozenset({"/segment", "/detect", "/classify", "/predict", "/overlay"})
_INFER = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer")


class ShedMiddleware:
    """Plain ASGI, in front of the routes. The server drops the body that nobody has read."""

    def __init__(self, app: ASGIApp, state: ServiceState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a picture if most are refused, pass everything else on."""
        scheduler, route = self._state.scheduler, find_picture_route(scope)
        if scheduler is not None and route:
            scope["route"] = SimpleNamespace(path=route)  # for the count of answers; routing replaces it
            try:
                scheduler.shed()
            except Overloaded as error:
                await make_problem_of(scope, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def find_picture_route(scope: Scope) -> str:
    """The template of the route that a picture is sent to, as metrics name it; empty if it is none."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return ""
    path = find_route_path(scope)
    if path in PICTURE_PATHS:
        return path
    asked = _INFER.fullmatch(path)
    if asked is None:
        return ""
    return "/v2/models/{model}/versions/{version}/infer" if asked[1] else "/v2/models/{model}/infer"
