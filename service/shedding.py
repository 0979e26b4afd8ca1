"""The cheapest answer to a picture that cannot be taken: before its body is read, before it is routed."""

from __future__ import annotations

from types import SimpleNamespace

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Overloaded
from service.problems import make_problem
from service.state import ServiceState

PICTURE_PATHS = frozenset({"/segment", "/detect", "/classify", "/predict"})


class ShedMiddleware:
    """Plain ASGI, in front of the routes. The server drops the body that nobody has read."""

    def __init__(self, app: ASGIApp, state: ServiceState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a picture if most are refused, pass everything else on."""
        scheduler = self._state.scheduler
        if scheduler is not None and _brings_picture(scope):
            scope["route"] = SimpleNamespace(path=scope["path"])  # for the count of answers; routing replaces it
            try:
                scheduler.shed()
            except Overloaded as error:
                headers = {"Retry-After": str(error.retry_after_s)}
                request_id = scope["state"]["request_id"]
                problem = make_problem(error.status, error.code, str(error), request_id=request_id, headers=headers)
                await problem(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _brings_picture(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in PICTURE_PATHS
