"""What a route says of itself, once: whether it takes pictures, and whether it is open without a key."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, get_type_hints

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from service.api.parameters import read_query
from service.api.scope import SHARE, find_route_path
from service.api.state import ServiceState, state_of
from service.memory import Share
from service.telemetry.timing import Stopwatch

if TYPE_CHECKING:
    from service.telemetry.spans import PictureTrace, RequestTrace

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class KeylessRoute(APIRoute):
    """Is answered without a key: it tells no more than that something serves here."""


class VitalRoute(APIRoute):
    """Is answered where no other connection has a place: who watches the service must tell busy from dead."""


class HealthRoute(VitalRoute, KeylessRoute):
    """Says whether the service lives, or takes pictures."""


class Caller(Protocol):
    """One request about pictures, by whatever protocol it came."""

    @property
    def service(self) -> ServiceState:
        """What takes its pictures."""

    @property
    def share(self) -> Share:
        """What it holds of the budget of memory."""

    def trace_pictures(self, watches: Sequence[Stopwatch]) -> Sequence[PictureTrace | None]:
        """Begin the traces of its pictures, one for each stopwatch; None for each where there is no tracing."""


class PictureRequest(Request):
    """A request of a `PictureRoute`, which the gates have looked at; nobody asks about a picture without one."""

    @property
    def service(self) -> ServiceState:
        """What takes pictures."""
        return state_of(self)

    @property
    def share(self) -> Share:
        """What it holds of the budget of memory, until it is answered; opened by the gates."""
        return cast("Share", self.scope["state"][SHARE])

    def trace_pictures(self, watches: Sequence[Stopwatch]) -> Sequence[PictureTrace | None]:
        """Begin the traces of its pictures, one for each stopwatch; None for each where there is no tracing."""
        trace: RequestTrace | None = self.scope["state"].get("trace")
        return [None] * len(watches) if trace is None else trace.add_pictures(watches)


class PictureRoute(APIRoute):
    """Takes pictures: its requests are traced and shed before they are routed.

    Documents an endpoint as FastAPI does, and calls it with the request and, if it has one, its query. FastAPI's own
    way from a request to an endpoint's arguments takes a quarter of a millisecond, for a query that is mostly empty;
    and it lets unknown and repeated names pass.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request; FastAPI asks for it once."""
        endpoint, shape = self.endpoint, get_type_hints(self.endpoint).get("query")
        defaults = () if shape is None else (shape(),)

        async def handle(request: Request) -> Response:
            query = defaults
            if shape is not None and request.scope["query_string"]:
                query = (read_query(request, shape),)
            response: Response = await endpoint(PictureRequest(request.scope, request.receive), *query)
            return response

        return handle


class FormKeyRoute(PictureRoute):
    """May find its key in a field of the form, once that is read, where the setting `deepstack_form_keys` says so."""


def declare(
    router: APIRouter,
    kind: type[APIRoute],
    method: str,
    path: str,
    **options: Any,  # noqa: ANN401 - FastAPI's own
) -> Callable[[Endpoint], Endpoint]:
    """Decorate the endpoint of a route of another kind than the others of its router; options as FastAPI has them."""

    def decorate(endpoint: Endpoint) -> Endpoint:
        router.add_api_route(path, endpoint, methods=[method], route_class_override=kind, **options)
        return endpoint

    return decorate


def name_operation(route: APIRoute) -> str:
    """Name a route in the OpenAPI document as its endpoint is named; generators make a function of that name."""
    return route.name


def declare_path_parameters(document: dict[str, Any]) -> None:
    """Add to an OpenAPI document the parameters of paths that no endpoint has as arguments."""
    for path, operations in document["paths"].items():
        for name in re.findall(r"\{(\w+)\}", path):
            parameter = {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for operation in operations.values():
                declared = operation.setdefault("parameters", [])
                if all((one["name"], one["in"]) != (name, "path") for one in declared):
                    declared.append(parameter)


class RouteTable:
    """Which route a request is for, to be asked before anything is routed."""

    def __init__(self, routers: Iterable[APIRouter]) -> None:
        """Read what routes say of themselves.

        Args:
            routers: of the app, included without a prefix.
        """
        routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
        self._fixed = {route.path: route for route in routes if not route.param_convertors}
        self._patterns = [route for route in routes if route.param_convertors]

    def find_picture_route(self, scope: Scope) -> PictureRoute | None:
        """Return the route that a request sends pictures to; None if it is for another, or no request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return None
        route = self._find(find_route_path(scope), PictureRoute)
        return route if isinstance(route, PictureRoute) else None

    def is_open(self, path: str) -> bool:
        """Whether a path, as the router sees it, is answered without a key."""
        return self._find(path, KeylessRoute) is not None

    def is_vital(self, path: str) -> bool:
        """Whether a path, as the router sees it, is answered at the limit of connections."""
        return self._find(path, VitalRoute) is not None

    def _find(self, path: str, kind: type[APIRoute]) -> APIRoute | None:
        route = self._fixed.get(path)
        if route is not None:
            return route if isinstance(route, kind) else None
        return next((one for one in self._patterns if isinstance(one, kind) and one.path_regex.match(path)), None)
