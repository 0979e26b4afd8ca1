"""Goals 1 to 3: files of any kind, raw and as forms, as fast as they are answered; nobody falls, hangs or grows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.commands.spawn import Spawned
from tests.attacks.asking import Client, Ledger, Outcome, percentile
from tests.attacks.goals import Figure, at_most, none_of
from tests.attacks.watching import answered, is_running, look, scrape
from tests.service.fakes import make_form

# What a file may be told: it was a picture, no bytes, too much, no picture, or damaged.
FILE_STATUSES = frozenset({200, 400, 413, 415, 422})
_CONNECTIONS = 4
_SLOW_MS = 2000


@dataclass(slots=True)
class Fed:
    """What came of a number of files.

    Attributes:
        ledger: of all requests.
        strange: files with an outcome that no file may have.
        slow: files that took more than two seconds.
        ms: of each file.
        memory_mb: after each file.
        alive: whether the process has survived.
    """

    ledger: Ledger
    strange: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    alive: bool = True

    def statuses(self) -> str:
        """Statuses and how often they came, in one line."""
        found: Counter[Outcome] = self.ledger.statuses()
        return ", ".join(f"{number} x {outcome}" for outcome, number in sorted(found.items(), key=str))


def find_files(folder: Path) -> list[Path]:
    """All files below a folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def read_twice(files: Iterable[Path]) -> Iterator[tuple[str, bytes, str]]:
    """Each file raw, and in a form: name, body, content type."""
    for path in files:
        body = path.read_bytes()
        yield f"{path.name} raw", body, "application/octet-stream"
        yield (f"{path.name} form", *make_form(file=body))


async def feed(
    service: Spawned, items: Iterable[tuple[str, bytes, str]], *, connections: int = _CONNECTIONS, paths: Sequence[str]
) -> Fed:
    """Send all items, in turn over the paths, and keep what came.

    Args:
        service: that gets them.
        items: name, body and content type of each.
        connections: at once.
        paths: of the service.
    """
    fed, queue = Fed(Ledger()), iter(enumerate(items))

    async def work() -> None:
        async with Client(service.host, service.port, fed.ledger) as client:
            for number, (name, body, content_type) in queue:
                answer = await client.ask(paths[number % len(paths)], body, {"Content-Type": content_type})
                fed.ms.append(answer.ms)
                if answer.outcome not in FILE_STATUSES:
                    fed.strange.append(f"{name}: {answer.outcome} {answer.body[:200]!r}")
                if answer.ms > _SLOW_MS:
                    fed.slow.append(f"{name}: {answer.ms:.0f} ms")
                fed.memory_mb.append(look(service.pid).memory_mb)

    await asyncio.gather(*(work() for _ in range(connections)))
    fed.alive = is_running(service.pid)
    return fed


def judge(what: str, fed: Fed, *, settled: int, growth_mb: float = 50) -> list[Figure]:
    """Hold what came against the bars.

    Args:
        what: was sent.
        fed: what came.
        settled: files after which memory counts.
        growth_mb: that memory may have grown from then to the end.
    """
    total = len(fed.ms)
    figures = [
        Figure(
            f"{what}: the process survives",
            f"{'yes' if fed.alive else 'no'}, {total} files, {fed.statuses()}",
            fed.alive and fed.ledger.open == 0,
        ),
        none_of(f"{what}: no crash, no 5xx, nothing but 200, 400, 413, 415 and 422", fed.strange, total),
        none_of(f"{what}: answers over 2 s", fed.slow, total),
    ]
    if total > settled:
        window = max(1, (total - settled) // 20)
        early, late = fed.memory_mb[settled : settled + window], fed.memory_mb[-window:]
        grown = sum(late) / len(late) - sum(early) / len(early)
        figures.append(at_most(f"{what}: memory from file {settled} to the end", grown, growth_mb, "MB"))
    return figures


async def feed_bombs(service: Spawned, bombs: Sequence[tuple[str, bytes]]) -> list[Figure]:
    """Send generated bombs one after another: each is refused at once, and costs no memory to speak of."""
    before = look(service.pid).memory_mb
    refused, wrong, times, peak = frozenset({413, 415, 422}), [], [], before
    async with Client(service.host, service.port) as client:
        for name, body in bombs:
            answer = await client.ask("/predict", body)
            times.append(answer.ms)
            peak = max(peak, look(service.pid).memory_mb)
            if answer.outcome not in refused:
                wrong.append(f"{name}: {answer.outcome}")
    return [
        none_of("bombs that are not refused with 413, 415 or 422", wrong, len(bombs)),
        at_most(f"{len(bombs)} bombs: 99th percentile of the answers", percentile(times, 0.99), 100, "ms"),
        at_most(f"{len(bombs)} bombs: memory", peak - before, 100, "MB"),
    ]


def reconcile(service: Spawned, ledger: Ledger, before: dict[tuple[str, int], int]) -> list[Figure]:
    """Compare a client's ledger with the service's own counters.

    A request that its client left, or that was reset, is in the counters once or not at all; every other exactly once.

    Args:
        service: that was asked.
        ledger: of everything that was sent since `before`.
        before: `answered(scrape(...))` at the beginning.
    """
    after = answered(scrape(service))
    grown = {key: number - before.get(key, 0) for key, number in after.items()}
    grown = {key: number for key, number in grown.items() if number and key[0] != "/metrics"}
    sent: Counter[tuple[str, int]] = Counter()
    for (path, outcome), number in ledger.outcomes.items():
        if isinstance(outcome, int):
            sent[path, outcome] += number
    wrong = [f"{key}: sent {sent[key]}, counted {grown.get(key, 0)}" for key in sent if sent[key] > grown.get(key, 0)]
    extra = sum(grown.values()) - sum(sent.values())
    left = ledger.count("left", "reset", "timeout")
    if not 0 <= extra <= left:
        wrong.append(f"{extra} more counted than answered, {left} left")
    return [
        Figure(
            "ledger: requests without exactly one outcome: none", f"{ledger.open} of {ledger.sent}", ledger.open == 0
        ),
        none_of("ledger and counters differ", wrong, len(sent)),
    ]
