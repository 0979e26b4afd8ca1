"""SIGKILL under load, and a supervisor that starts the service again: one outcome a request, and none a wrong one."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from service.engine.golden import GOLDEN_PICTURES
from tests.attacks.processes import HOST, find_port, start

BODIES = [path.read_bytes() for path in sorted(GOLDEN_PICTURES.glob("*.jpg"))]
CLIENTS = 8
READY_WITHIN_S = 10


def read_answer(content: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(content)
    del answer["timing_ms"]
    return answer


class Client(threading.Thread):
    """Asks again and again, on a connection that is kept as long as it lasts, and keeps book.

    Attributes:
        sent: requests of which a byte may have left.
        outcomes: how they ended.
        wrong: answers that are not those of a service that nobody hurts.
    """

    def __init__(self, port: int, number: int, wanted: list[dict[str, Any]], stop: threading.Event) -> None:
        super().__init__()
        self.sent = 0
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._port, self._number, self._wanted, self._stopped = port, number, wanted, stop

    def run(self) -> None:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=60)
        while not self._stopped.is_set():
            picture = (self.sent + self._number) % len(BODIES)
            try:
                if connection.sock is None:
                    connection.connect()
            except OSError:  # nobody listens: no request has been sent
                time.sleep(0.02)
                continue
            self.sent += 1
            self.outcomes[self._ask(connection, picture)] += 1
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, picture: int) -> str:
        try:
            connection.request("POST", "/predict", BODIES[picture], {"Cache-Control": "no-cache"})
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return "reset"
        if response.status != http.client.OK or read_answer(content) != self._wanted[picture]:
            self.wrong.append(f"{response.status} {content[:200]!r}")
            return "wrong"
        return "answer"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=[pytest.mark.full])])
def test_a_killed_service_is_ready_again_soon_and_answers_nothing_wrong(tmp_path: Path, kills: int) -> None:
    port, stop = find_port(), threading.Event()
    clients: list[Client] = []
    ready_s = []
    for life in range(kills + 1):
        with start(tmp_path / f"log-{life}", port=port) as service:  # a supervisor: it starts what has died, at once
            ready_s.append(service.wait_until_ready())
            if life == 0:
                wanted = [read_answer(service.ask("/predict", body)[1]) for body in BODIES]
                clients = [Client(port, number, wanted, stop) for number in range(CLIENTS)]
                for client in clients:
                    client.start()
            before = sum(client.outcomes["answer"] for client in clients)
            deadline = time.monotonic() + 60
            while sum(client.outcomes["answer"] for client in clients) < before + 5 * CLIENTS:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            if life < kills:
                service.process.kill()
                service.wait(10)
            else:
                stop.set()
                for client in clients:
                    client.join()
    outcomes = sum((client.outcomes for client in clients), Counter[str]())
    sent = sum(client.sent for client in clients)
    print(f"ready after {', '.join(f'{seconds:.1f}' for seconds in ready_s)} s; {sent} requests: {dict(outcomes)}")  # noqa: T201 - figures for the report
    assert [one for client in clients for one in client.wrong] == []
    assert outcomes.total() == sent
    # A kill costs each client what it waited for, and perhaps a connection that the dying port has just taken.
    assert outcomes["reset"] <= 2 * kills * CLIENTS
    assert max(ready_s) < READY_WITHIN_S
