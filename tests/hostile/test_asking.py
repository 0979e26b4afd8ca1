"""The instruments themselves: a ledger that notices, a client that tells a reset from an answer, slopes and tables."""

from __future__ import annotations

import asyncio

import pytest

from tests.attacks.__main__ import ROOT, TESTS
from tests.attacks.asking import LEFT, RESET, TIMEOUT, Client, Ledger, percentile
from tests.attacks.goals import Figure, at_least, at_most, none_of, require, write_table
from tests.attacks.mutants import make_mutants, make_seeds
from tests.attacks.soak import slope_per_hour


async def ask_a_server_that(says: bytes, *, wait: bool = False, leave_after_s: float | None = None) -> Ledger:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(says)
        if wait:
            await reader.read()
        writer.close()
        handled.set()

    handled = asyncio.Event()
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Client("127.0.0.1", port) as client:
        answer = await client.ask("/x?y=1", b"body", timeout_s=0.2, leave_after_s=leave_after_s)
        assert client.ledger.outcomes == {("/x", answer.outcome): 1}
    await handled.wait()
    server.close()
    await asyncio.sleep(0)
    return client.ledger


@pytest.mark.parametrize(
    ("says", "wait", "leave_after_s", "outcome"),
    [
        (b"HTTP/1.1 422 No\r\nContent-Length: 2\r\n\r\nno", False, None, 422),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", False, None, RESET),
        (b"", False, None, RESET),
        (b"", True, None, TIMEOUT),
        (b"", True, 0.01, LEFT),
    ],
)
def test_each_end_of_a_request_is_told_apart(
    says: bytes, wait: bool, leave_after_s: float | None, outcome: int | str
) -> None:
    ledger = asyncio.run(ask_a_server_that(says, wait=wait, leave_after_s=leave_after_s))
    assert (ledger.sent, ledger.open, ledger.count(outcome)) == (1, 0, 1)


def test_a_second_outcome_of_one_request_is_an_error() -> None:
    ledger = Ledger()
    number = ledger.begin()
    assert ledger.open == 1
    ledger.end(number, "/x", 200)
    with pytest.raises(KeyError):
        ledger.end(number, "/x", 200)


def test_mutants_are_the_same_for_the_same_seed_and_differ_from_their_seeds() -> None:
    first, again = dict(make_mutants(200, 3)), dict(make_mutants(200, 3))
    assert first == again
    assert first != dict(make_mutants(200, 4))
    assert len(set(first.values()) - set(make_seeds().values())) > 190


def test_a_figure_out_of_its_bar_fails_the_table_and_the_test() -> None:
    figures = [at_most("time", 3, 2, "ms"), at_least("share", 1, 0.9, ""), none_of("faults", [], 10)]
    assert [one.passed for one in figures] == [False, True, True]
    assert "| time: at most 2 ms | 3.0 ms | **fail** |" in write_table(figures)
    with pytest.raises(AssertionError, match=r"time: at most 2 ms -- 3\.0 ms"):
        require(figures)
    require([Figure("good", "1", passed=True)])


def test_every_goal_that_is_a_test_has_one() -> None:
    missing = [file for files in TESTS.values() for file in files if not (ROOT / file).is_file()]
    assert missing == []


def test_slopes_and_percentiles() -> None:
    assert slope_per_hour([(0, 100), (1800, 101), (3600, 102)]) == pytest.approx(2)
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([], 0.5) == 0.0
