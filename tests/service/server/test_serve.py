from __future__ import annotations

import socket
from pathlib import Path

import pytest

from service.server.serve import StartError, _allow_hosts, _listen
from service.settings import Settings

EVERYWHERE = "0.0.0.0"  # noqa: S104 - the service must refuse it


def test_asyncio_can_see_that_connections_are_tcp() -> None:
    # asyncio switches Nagle's algorithm off by this; with it on, kept connections answer 40 ms late.
    with _listen(Settings(port=0)) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.proto == socket.IPPROTO_TCP


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "127.1", "localhost"])
def test_loopback_addresses_need_no_keys(host: str) -> None:
    _listen(Settings(host=host, port=0)).close()


@pytest.mark.parametrize("host", [EVERYWHERE, "0", "::", "::ffff:0.0.0.0"])
def test_an_address_that_others_reach_needs_keys_or_a_word_aloud(host: str, tmp_path: Path) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with pytest.raises(StartError, match=r"--keys.*--auth off \(UNIHEAD_AUTH=off\)$") as failure:
        _listen(Settings(host=host, port=0))
    assert failure.value.code == 2
    assert str(failure.value).startswith(f"{host} is an address that others may reach")
    _listen(Settings(host=host, port=0, auth="off")).close()
    _listen(Settings(host=host, port=0, keys=tmp_path / "keys")).close()


def test_a_name_counts_as_what_the_system_makes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, port, **more: real(EVERYWHERE, port, **more))
    with pytest.raises(StartError, match="localhost is an address that others may reach"):
        _listen(Settings(host="localhost", port=0))


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "given", "allowed"),
    [
        ("127.0.0.1", (), ("localhost", "127.0.0.1")),
        ("localhost", (), ("localhost", "localhost")),
        ("127.0.0.1", ("example.org",), ("example.org",)),
        (EVERYWHERE, (), ()),
    ],
)
def test_on_loopback_no_name_is_answered_that_is_not_this_machines(
    host: str, given: tuple[str, ...], allowed: tuple[str, ...]
) -> None:
    settings = Settings(host=host, port=0, auth="off", allowed_hosts=given)
    with _listen(settings) as listener:
        assert _allow_hosts(settings, listener).allowed_hosts == allowed
