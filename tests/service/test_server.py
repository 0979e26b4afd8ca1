from __future__ import annotations

import socket

from service.server import _listen


def test_asyncio_can_see_that_connections_are_tcp() -> None:
    # asyncio switches Nagle's algorithm off by this; with it on, kept connections answer 40 ms late.
    with _listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.proto == socket.IPPROTO_TCP
