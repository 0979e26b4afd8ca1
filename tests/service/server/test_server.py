from __future__ import annotations

import asyncio
import resource
from types import SimpleNamespace
from typing import cast

import pytest
import uvicorn

from service.server.server import find_fault_of_limit, fit_connections, sweep_connections


class FakeConnection:
    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.swept = self.closed = self.told = 0

    def sweep(self, now: float) -> None:  # noqa: ARG002 - as connections are asked
        if self.broken:
            raise RuntimeError("broken")
        self.swept += 1

    def close(self) -> None:
        self.closed += 1

    def shutdown(self) -> None:
        self.told += 1


async def sweep_for(seconds: float, *fakes: FakeConnection, serving: bool) -> None:
    server = SimpleNamespace(
        started=True,
        servers=[SimpleNamespace(is_serving=lambda: serving)],
        server_state=SimpleNamespace(connections=set(fakes)),
    )
    async with sweep_connections(cast("uvicorn.Server", server)):
        await asyncio.sleep(seconds)


@pytest.mark.anyio
async def test_one_broken_connection_does_not_stop_the_clock_of_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.server.server._SWEEP_S", 0.01)
    broken, sound = FakeConnection(broken=True), FakeConnection()
    await sweep_for(0.2, broken, sound, serving=True)
    assert broken.closed
    assert sound.swept > 1
    assert not sound.told
    assert caplog.records


@pytest.mark.anyio
async def test_the_connection_that_came_last_hears_of_the_shutdown_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.server.server._SWEEP_S", 0.01)
    late = FakeConnection()
    await sweep_for(0.1, late, serving=False)
    assert late.told


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "fitting", "raised_to"),
    [
        (20_000, 20_000, 1024, 1024, None),
        (256, 4096, 1024, 1024, 1152),
        (256, resource.RLIM_INFINITY, 1024, 1024, 1152),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 1024, 1024, None),
        (256, 1000, 1024, 872, 1000),
        (256, 256, 1024, 128, 256),
    ],
)
def test_as_many_connections_are_taken_as_files_may_be_open(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int, fitting: int, raised_to: int | None
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert fit_connections(wanted) == fitting
    assert asked == ([] if raised_to is None else [(raised_to, hard)])


def test_the_connections_of_another_port_have_files_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    assert fit_connections(10_000) - fit_connections(10_000, beside=256) == 256


@pytest.mark.parametrize(
    ("most", "is_enough"), [(resource.RLIM_INFINITY, True), (256, True), (255, False), (64, False)]
)
def test_too_few_files_are_a_sentence_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, most: int, is_enough: bool
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, most))
    fault = find_fault_of_limit()
    assert (fault is None) == is_enough
    if fault is not None:
        assert fault.startswith(f"this process may open {most} files and sockets, and needs 256 at least: raise")
        assert "`ulimit -n 4096`" in fault
