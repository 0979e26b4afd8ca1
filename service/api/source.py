"""Which host a request may ask for, and whose pages may send something: browsers do it for any page that is open.

A page of anybody may send a POST to a service on its visitor's machine, and read the answer too if its own name means
that machine by then (DNS rebinding).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import make_problem_of
from service.errors import ForeignOrigin, RequestError, UnknownHost

ALL_HOSTS = "*"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
# What browsers say of a request's page, and no page can change (Fetch Metadata).
_OWN_PAGES = frozenset({"same-origin", "none"})
_NAMES = frozenset({b"host", b"origin", b"sec-fetch-site", b"x-forwarded-host"})
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class SourceMiddleware:
    """Plain ASGI, in front of all that answers.

    Attributes:
        app: what is guarded.
        hosts: that may be asked for, as the setting has them; none: all may.
        origins: whose pages may send what changes something, besides the service's own.
        trust_forwarded_host: believe X-Forwarded-Host.
    """

    app: ASGIApp
    hosts: Collection[str]
    origins: Collection[str]
    trust_forwarded_host: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if it asks for a host of ours, and is sent by nobody else's page."""
        error = self._find_fault(scope) if scope["type"] == "http" else None
        if error is None:
            await self.app(scope, receive, send)
        else:
            await make_problem_of(scope, error)(scope, receive, send)

    def _find_fault(self, scope: Scope) -> RequestError | None:
        found = {name: value.decode("latin-1") for name, value in scope["headers"] if name in _NAMES}
        host = found.get(b"host", "")
        if not is_known_host(host, self.hosts):
            return UnknownHost(
                "the Host that is asked for is none of this service's; list it in its setting allowed_hosts "
                "(UNIHEAD_ALLOWED_HOSTS)"
            )
        if scope["method"] in _SAFE_METHODS or found.get(b"origin") in self.origins:
            return None
        hosts = [host, found.get(b"x-forwarded-host", "").partition(",")[0].strip()]
        if is_own_page(found.get(b"origin"), found.get(b"sec-fetch-site"), hosts[: 1 + self.trust_forwarded_host]):
            return None
        return ForeignOrigin(
            "a page of another origin has sent this; if it may, list its origin in the setting cors_origins "
            "(UNIHEAD_CORS_ORIGINS)"
        )


def is_known_host(host: str, allowed: Collection[str]) -> bool:
    """Whether a Host, perhaps with a port, may be asked for.

    Args:
        host: the header; empty if there is none, as no browser sends it.
        allowed: names, *.names, or * for all; none are all, too.
    """
    if not allowed or ALL_HOSTS in allowed:
        return True
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    name = name.lower().removesuffix(".")
    return is_local_name(name) or name in allowed or any(f"*.{end}" in allowed for end in _find_ends(name))


def is_local_name(name: str) -> bool:
    """Whether a name without port, in lower case, is none that somebody could own in the DNS of the internet.

    Those are addresses, names without a dot, and localhost with what is before it (RFC 6761, sec. 6.3).
    """
    last = name.rpartition(".")[2]
    return name.startswith("[") or "." not in name or last.isdigit() or last == "localhost"


def _find_ends(name: str) -> Iterable[str]:
    """Of a.example.org: example.org, org."""
    while "." in name:
        name = name.partition(".")[2]
        yield name


def is_own_page(origin: str | None, site: str | None, hosts: Iterable[str]) -> bool:
    """Whether a request that may change something was sent by a page of this service, or by no page.

    What the browser says of the page counts, where it says that: it knows of proxies and prefixes. Older ones, and all
    where there is no TLS, say the origin only (the order is that of Go's http.CrossOriginProtection).

    Args:
        origin: the header; None where there is none.
        site: the header Sec-Fetch-Site, likewise.
        hosts: with port, by which the service was asked.
    """
    if site is not None:
        return site in _OWN_PAGES
    if origin is None:
        return True
    scheme, _, asked_from = origin.lower().partition("://")
    port = _DEFAULT_PORTS.get(scheme, "")
    return any(asked_from.removesuffix(port) == host.lower().removesuffix(port) for host in hosts if host)
