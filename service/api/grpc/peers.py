"""The connection behind a call, which grpc.aio does not show: found among this process's sockets, to be ended."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

_OPEN_FILES = Path("/proc/self/fd")


def disconnect(peer: str, port: int) -> bool:
    """End the connections of a client to one of this process's ports; on Linux.

    Args:
        peer: as gRPC writes it: ipv4:127.0.0.1:50000, ipv6:%5B::1%5D:50000.
        port: of this process.

    Returns:
        Whether there was one.
    """
    host, _, number = urllib.parse.unquote(peer).partition(":")[2].rpartition(":")
    wanted = _normalize(host.strip("[]")), int(number)
    found = [one for one in _list_sockets() if _is_between(one, wanted, port)]
    for one in found:
        with contextlib.closing(one), contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
    return bool(found)


def _list_sockets() -> Iterator[socket.socket]:
    """Duplicates of the sockets that this process has open; each closed unless somebody keeps it."""
    for path in list(_OPEN_FILES.iterdir()):
        with contextlib.suppress(OSError):  # no socket, or closed by now
            yield socket.socket(fileno=os.dup(int(path.name)))


def _is_between(one: socket.socket, wanted: tuple[str, int], port: int) -> bool:
    try:
        is_it = (
            one.family in {socket.AF_INET, socket.AF_INET6}
            and one.getsockname()[1] == port
            and (_normalize(one.getpeername()[0]), one.getpeername()[1]) == wanted
        )
    except OSError:
        is_it = False  # it listens
    if not is_it:
        one.close()
    return is_it


def _normalize(host: str) -> str:
    """An IPv4 address that came through a socket for IPv6, as what it is; a scope goes."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
