from __future__ import annotations

import socket

import pytest

from service.api.grpc.peers import disconnect


@pytest.mark.parametrize(
    ("family", "host", "peer"),
    [(socket.AF_INET, "127.0.0.1", "ipv4:127.0.0.1:"), (socket.AF_INET6, "::1", "ipv6:%5B::1%5D:")],
)
def test_the_connection_of_one_client_is_ended_and_no_other(family: int, host: str, peer: str) -> None:
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as one,
        listener.accept()[0] as accepted,
        socket.create_connection(listener.getsockname()[:2]) as two,
        listener.accept()[0] as kept,
    ):
        port = listener.getsockname()[1]
        number = one.getsockname()[1]
        assert not disconnect(f"{peer}{number}", port + 1), "another port of ours"
        assert disconnect(f"{peer}{number}", port)
        one.settimeout(5)
        assert one.recv(1) == b""
        kept.sendall(b"x")
        assert two.recv(1) == b"x"
        accepted.close()
        assert not disconnect(f"{peer}{number + 1}", port) or two.getsockname()[1] == number + 1


def test_an_address_for_both_families_is_that_of_ipv4() -> None:
    with (
        socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener,
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as one,
        listener.accept()[0],
    ):
        assert disconnect(f"ipv4:127.0.0.1:{one.getsockname()[1]}", listener.getsockname()[1])
