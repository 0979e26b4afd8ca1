"""The path of a request as the router sees it: what decides by paths beside the router may see no other."""

from __future__ import annotations

from starlette.types import Scope


def find_route_path(scope: Scope) -> str:
    """Return the path, decoded, without the prefix that a proxy or Ray Serve has put the app under."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    if prefix and (path == prefix or path.startswith(f"{prefix}/")):
        return path[len(prefix) :]
    return path
