"""Words of settings as people and other programs write them, and text from elsewhere as it may be printed."""

from __future__ import annotations

import re

# As browsers send it: no path, no wildcard.
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]+)?")
_HOST = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
# As in service/client.py, which works alone.
_OBEYED = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SERVICE_LINK = re.compile(r"(?:tcp|udp|sctp)://[0-9A-Za-z.:\[\]-]+:[0-9]+")


def make_printable(text: str) -> str:
    """Write what a terminal would obey, and what cannot be encoded, as an escape, as in a string of Python."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def is_service_link(value: object) -> bool:
    """Whether the value of a variable is one that Kubernetes sets for a Service: NAME_PORT=tcp://10.0.0.1:80."""
    return isinstance(value, str) and _SERVICE_LINK.fullmatch(value) is not None


def lower(value: object) -> object:
    """`INFO` is `info`."""
    return value.lower() if isinstance(value, str) else value


def split(value: object) -> object:
    """`A,B` and, from the command line, lists of it; without blanks."""
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list | tuple):
        return tuple(name.strip() for text in texts for name in str(text).split(",") if name.strip())
    return value


def check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    """Return what are origins.

    Raises:
        ValueError: one is none.
    """
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is no origin; it must look like https://example.org, lower case, no path")
    return origins


def check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Return what are names of hosts, *.names, or *.

    Raises:
        ValueError: one is none.
    """
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host!r} is no name of a host; it must look like example.org, lower case, no port")
    return hosts
