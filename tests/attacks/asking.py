"""A client that keeps book: each request that it sends ends in exactly one outcome."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeAlias

# A status, or what came in its place.
Outcome: TypeAlias = int | str
RESET, TIMEOUT, LEFT = "reset", "timeout", "left"


@dataclass(frozen=True, slots=True)
class Answer:
    """How one request ended.

    Attributes:
        outcome: the status; RESET where the connection broke, TIMEOUT where nothing came, LEFT where the client left.
        ms: from the first byte sent to the last one read.
        headers: of the answer, names in small letters.
        body: of the answer.
    """

    outcome: Outcome
    ms: float
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = b""


class Ledger:
    """What was sent, and how it ended; requests under way are those without an outcome."""

    def __init__(self) -> None:
        self.sent = 0
        self.outcomes: Counter[tuple[str, Outcome]] = Counter()
        self._open: set[int] = set()
        self._numbers = itertools.count(1)

    def begin(self) -> int:
        """Note that a request is sent; returns its number."""
        self.sent += 1
        number = next(self._numbers)
        self._open.add(number)
        return number

    def end(self, number: int, path: str, outcome: Outcome) -> None:
        """Note how a request ended; a second outcome of one request is an error."""
        self._open.remove(number)
        self.outcomes[path, outcome] += 1

    @property
    def open(self) -> int:
        """Requests without an outcome."""
        return len(self._open)

    def count(self, *outcomes: Outcome) -> int:
        """Requests that ended so."""
        return sum(number for (_, outcome), number in self.outcomes.items() if outcome in outcomes)

    def statuses(self) -> Counter[Outcome]:
        """Requests by outcome."""
        found: Counter[Outcome] = Counter()
        for (_, outcome), number in self.outcomes.items():
            found[outcome] += number
        return found


class Client:
    """One connection, kept as long as the server keeps it, opened again when it does not."""

    def __init__(self, host: str, port: int, ledger: Ledger | None = None) -> None:
        self._host, self._port = host, port
        self.ledger = ledger if ledger is not None else Ledger()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        """Open nothing yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.drop()
        await asyncio.sleep(0)  # the event loop lets go of it in its next turn

    async def ask(
        self,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "POST",
        timeout_s: float = 30,
        leave_after_s: float | None = None,
    ) -> Answer:
        """Send one request and wait for how it ends.

        Args:
            path: with its query.
            body: of the request.
            headers: beside Host and Content-Length.
            method: of the request.
            timeout_s: seconds until it counts as not answered.
            leave_after_s: seconds after which this client hangs up, whatever has come; None: it waits.
        """
        number, started = self.ledger.begin(), time.perf_counter()
        patience_s = timeout_s if leave_after_s is None else leave_after_s
        try:
            async with asyncio.timeout(patience_s):
                status, answer_headers, content = await self._exchange(method, path, body, headers or {})
        except TimeoutError:
            self.drop()
            outcome: Outcome = TIMEOUT if leave_after_s is None else LEFT
            answer = Answer(outcome, _since_ms(started))
        except (OSError, EOFError, ValueError):
            self.drop()
            answer = Answer(RESET, _since_ms(started))
        else:
            answer = Answer(status, _since_ms(started), answer_headers, content)
            if answer_headers.get("connection", "").lower() == "close":
                self.drop()
        self.ledger.end(number, path.partition("?")[0], answer.outcome)
        return answer

    async def _exchange(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=2**20)
        reader, writer = self._streams
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        # Not before reading: a refusal may come while the body is still being sent.
        sending = asyncio.ensure_future(writer.drain())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            status, answer_headers = _parse_head(head)
            content = await reader.readexactly(int(answer_headers.get("content-length", "0")))
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sending
        return status, answer_headers, content

    def drop(self) -> None:
        """Close the connection at once, whatever is under way on it."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *rest = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in rest if line)
    return int(first.split(" ", 2)[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


def _since_ms(started: float) -> float:
    return (time.perf_counter() - started) * 1000


def percentile(values: list[float], share: float) -> float:
    """The value that `share` (0..1) of the values do not exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
