"""Clients that send what they like, byte for byte, and hear what comes back."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator

from service.commands.spawn import Spawned


@contextlib.contextmanager
def connect(service: Spawned) -> Iterator[socket.socket]:
    with socket.create_connection((service.host, service.port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the server closes; a reset loses nothing that has come before."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    return received


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One answer of a connection that stays open."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        assert piece, f"closed after {received!r}"
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    return int(lines[0].split()[1]), headers, body


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def drip(connection: socket.socket, pieces: bytes, every_s: float = 0.2) -> tuple[bytes, float]:
    """Send a byte at a time until the server closes; returns what it said, and after how many seconds."""
    started = time.monotonic()
    connection.settimeout(every_s)
    received = b""
    for byte in pieces:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(bytes([byte]))
        try:
            piece = connection.recv(65536)
        except TimeoutError:
            continue
        except ConnectionResetError:
            break
        received += piece
        if not piece:
            break
    return received, time.monotonic() - started
