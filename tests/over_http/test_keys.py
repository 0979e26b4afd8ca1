"""Keys that a real process asks for: before the body is sent, however a path is spelled, and while they change."""

from __future__ import annotations

import http.client
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from service.api.keys import hash_key, make_key
from service.commands.spawn import Spawned, spawn_service
from service.engine.golden import GOLDEN_PICTURES

pytestmark = pytest.mark.slow

CAT = (GOLDEN_PICTURES / "chelsea.jpg").read_bytes()


class Clients:
    """Ask without a pause, each on a connection of its own, with the key that is the current one."""

    def __init__(self, service: Spawned, key: str, count: int = 4) -> None:
        self.key = key
        self.statuses: list[int] = []
        self.seen = [""] * count
        self._service = service
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def change(self, key: str) -> None:
        """Return once nobody has a request under way that brings another key."""
        self.key = key
        wait_until(lambda: set(self.seen) == {key}, 30)

    def _run(self, number: int) -> None:
        connection = http.client.HTTPConnection(self._service.host, self._service.port, timeout=60)
        while not self._stop.is_set():
            key = self.key
            self.statuses.append(ask(connection, key, "POST", "/predict", CAT))
            self.seen[number] = key
        connection.close()


def ask(connection: http.client.HTTPConnection, key: str, method: str, path: str, body: bytes | None = None) -> int:
    connection.request(method, path, body, {"Authorization": f"Bearer {key}", "Cache-Control": "no-cache"})
    response = connection.getresponse()
    response.read()
    return response.status


def wait_until(condition: Callable[[], bool], limit_s: float) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < limit_s
        time.sleep(0.005)


def write_keys(path: Path, keys: list[str]) -> None:
    temporary = path.with_suffix(".new")
    temporary.touch(mode=0o600)
    temporary.write_text("".join(f"id-{key[-8:]} {hash_key(key)}\n" for key in keys))
    temporary.replace(path)


def test_rotating_keys_under_load_fails_nobody_and_kills_the_old_ones(tmp_path: Path) -> None:
    path, keys = tmp_path / "keys", [make_key() for _ in range(6)]
    write_keys(path, keys[:1])
    with spawn_service(["--keys", str(path), "--log-level", "warning"]) as service:
        clients = Clients(service, keys[0])
        connection = http.client.HTTPConnection(service.host, service.port, timeout=60)

        def reload() -> None:
            os.kill(service.pid, signal.SIGHUP)

        def answers(key: str, status: int) -> bool:
            return ask(connection, key, "GET", "/info") == status

        with clients.running():
            for old, new in itertools.pairwise(keys):
                assert ask(connection, new, "GET", "/info") == 401
                write_keys(path, [old, new])
                reload()
                wait_until(partial(answers, new, 200), 1)
                assert ask(connection, old, "GET", "/info") == 200
                clients.change(new)
                write_keys(path, [new])
                reload()
                wait_until(partial(answers, old, 401), 1)
            path.write_text("nonsense")
            reload()
            path.unlink()
            reload()
            time.sleep(0.5)
            assert ask(connection, keys[-1], "GET", "/info") == 200
            assert ask(connection, keys[0], "GET", "/info") == 401
        connection.close()
    assert len(clients.statuses) > 20
    assert set(clients.statuses) == {200}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawned]:
    path = tmp_path_factory.mktemp("door") / "keys"
    write_keys(path, ["uh_in-force"])
    with spawn_service(["--keys", str(path), "--log-level", "warning"]) as service:
        yield service


def send_raw(service: Spawned, head: str) -> bytes:
    """Send the head of a request and nothing else; returns the beginning of the answer."""
    with socket.create_connection((service.host, service.port), timeout=10) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n")
        return connection.recv(65_536)


@pytest.mark.parametrize(
    "key", ["", "Authorization: Bearer wrong\n", f"X-API-Key: {'k' * 30_000}\n", "X-API-Key: \xff\n"]
)
def test_no_client_is_told_to_send_a_body_that_nobody_may_read(guarded: Spawned, key: str) -> None:
    head = f"POST /predict HTTP/1.1\nHost: x\n{key}Content-Length: 9000000\nExpect: 100-continue"
    assert send_raw(guarded, head).startswith(b"HTTP/1.1 401 ")
    head = head.replace(key, "X-API-Key: uh_in-force\n", 1) if key else f"{head}\nX-API-Key: uh_in-force"
    assert send_raw(guarded, head).startswith(b"HTTP/1.1 100 ")


@pytest.mark.parametrize(
    "target",
    [
        "//healthz", "/healthz/", "/HEALTHZ", "/healthz/../info", "/%68ealthz/../info", "/healthz%2f..%2finfo",
        "/static", "/x/../info", "/info?/healthz", "/info#/healthz", "/info%0a",
        "/%69nfo", "http://x/info", "http://x//healthz",
    ],
)  # fmt: skip
def test_no_spelling_of_a_target_is_answered_without_a_key(guarded: Spawned, target: str) -> None:
    assert send_raw(guarded, f"GET {target} HTTP/1.1\nHost: x").startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("target", ["/healthz", "/%68ealthz", "/healthz?x", "http://x/healthz", "/static/page.css"])
def test_what_is_open_stays_so_however_it_is_spelled(guarded: Spawned, target: str) -> None:
    assert send_raw(guarded, f"GET {target} HTTP/1.1\nHost: x").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("target", ["/static/../info", "/static%2f..%2finfo", "/static/..%2f..%2fapp.py"])
def test_the_open_folder_leads_nowhere_else(guarded: Spawned, target: str) -> None:
    assert send_raw(guarded, f"GET {target} HTTP/1.1\nHost: x").startswith(b"HTTP/1.1 404 ")
