"""Everything hostile, in full size, and a table of goals at the end; `make hostile`.

Run from the repository's root: `python -m tests.attacks [--corpus DIR ...] [--only GOAL ...] [--write]`
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from service.commands.spawn import Spawned, spawn_service
from service.machine import available_cpus
from tests.attacks import calls, costly, doors, feeding, memory, mutants, slow, soak, whole
from tests.attacks.arsenal import make_bombs
from tests.attacks.goals import Figure, at_least, at_most, none_of, write_table
from tests.benchmarks import overload
from tests.grpc_service import spawn_grpc

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- goals: written by make hostile -->", "<!-- end of goals -->"
_PATHS = ("/predict", "/detect", "/segment", "/classify", "/overlay")
_MUTANTS, _SEED = 100_000, 0
_JPEG_MUTANTS = 20_000
# What the shipped container may have (docs/deploy.md).
_MEMORY_MB = 1024
_SETTLED_FILES, _SETTLED_MUTANTS = 1000, 5000
_CALLS, _SETTLED_CALLS = 5000, 1000
# What is a test already: these files, with what they leave out of the quick suite.
TESTS = {
    "raw framings": ["tests/service/server/test_protocol.py", "tests/service/server/test_protocol_in_turn.py"],
    "floods of one connection": ["tests/service/server/test_protocol_floods.py"],
    "kill -9 under load": ["tests/hostile/test_kill.py"],
    "SIGTERM with 50 in flight": ["tests/hostile/test_leaving.py"],
    "bad models, at start and at a reload": ["tests/hostile/test_bad_models.py"],
    "disk full, read-only root": ["tests/hostile/test_faulty_host.py"],
    "clock jumps": ["tests/hostile/test_clock.py"],
    "keys: every route, rotation under load": ["tests/service/api/test_auth.py", "tests/over_http/test_keys.py"],
    "the interpreter is held for 50 ms at most": ["tests/service/api/oip/test_bounds.py"],
    "stuck decoders, with the pre-checks off": ["tests/service/scheduling/test_stuck_pictures.py"],
    "schemathesis over the OpenAPI document": ["tests/hostile/test_schema.py"],
}


@contextmanager
def serve(*words: str) -> Iterator[Spawned]:
    """A service of its own for one goal; without a cache, whose 64 MiB would pass for memory that is lost."""
    with spawn_service(["--log-level", "error", "--cache-max-bytes", "0", *words]) as service:
        yield service


def check_bombs(_: argparse.Namespace) -> list[Figure]:
    """Generated bombs."""
    with serve() as service:
        return asyncio.run(feeding.feed_bombs(service, make_bombs()))


def check_costly(_: argparse.Namespace) -> list[Figure]:
    """Small requests that would cost much."""
    requests = costly.make_requests()
    with serve() as service:
        return asyncio.run(costly.measure(service, requests, at_once=8, health_ms=300, memory_mb=300))


def check_prefixes(_: argparse.Namespace) -> list[Figure]:
    """Every prefix of five small pictures."""
    seeds = mutants.make_seeds()
    five = {name: seeds[name] for name in ("baseline.jpg", "progressive.jpg", "rgb.png", "lossy.webp", "lossless.webp")}
    items = [(name, body, "image/jpeg") for name, body in mutants.make_prefixes(five)]
    with serve() as service:
        fed = asyncio.run(feeding.feed(service, items, paths=_PATHS))
    return feeding.judge(f"all {len(items)} prefixes of five pictures", fed, settled=_SETTLED_FILES)


def check_mutants(options: argparse.Namespace) -> list[Figure]:
    """Seeded mutants."""
    items = ((name, body, "image/jpeg") for name, body in mutants.make_mutants(options.mutants, _SEED))
    with serve() as service:
        fed = asyncio.run(feeding.feed(service, items, paths=_PATHS))
    return feeding.judge(f"{options.mutants} mutants (seed {_SEED})", fed, settled=_SETTLED_MUTANTS)


def check_whole(_: argparse.Namespace) -> list[Figure]:
    """Which JPEGs are whole, held against djpeg."""
    if not whole.has_djpeg():
        return [Figure("whole JPEGs", "not run: no djpeg (Debian package libjpeg-turbo-progs)", passed=False)]
    figures = []
    for what, items in {
        "every prefix of twenty JPEGs": whole.make_prefixes(),
        f"{_JPEG_MUTANTS} mutants of them (seed {_SEED})": whole.make_jpeg_mutants(_JPEG_MUTANTS, _SEED),
    }.items():
        found = whole.compare(items)
        no_code, refused = (len(some) / found.total * 100 for some in (found.no_code, found.refused))
        figures += [
            none_of(f"{what}: taken, and less than whole for djpeg", found.taken, found.total),
            at_most(f"{what}: taken with a code that is none, in unusual sampling", no_code, 0.1, "%"),
            at_most(f"{what}: refused, and whole for djpeg", refused, 3, "%"),
        ]
    return figures


def check_corpus(options: argparse.Namespace) -> list[Figure]:
    """Folders of odd and damaged files; strace looks on."""
    if not options.corpus:
        return [Figure("corpus", "not run: no --corpus given", passed=False)]
    files = [path for folder in options.corpus for path in feeding.find_files(folder)]
    what = f"corpus of {len(files)} files, raw and as forms"
    with serve() as service:
        fed = asyncio.run(feeding.feed(service, feeding.read_twice(files), paths=_PATHS))
        figures = feeding.judge(what, fed, settled=_SETTLED_FILES)
    if not doors.has_strace():
        return [
            *figures,
            Figure("corpus: no program started, no connection opened", "not run: no strace", passed=False),
        ]
    with (
        tempfile.TemporaryDirectory() as folder,
        serve() as service,
        doors.trace(service.pid, Path(folder, "strace.log")) as calls,
    ):
        fed = asyncio.run(feeding.feed(service, feeding.read_twice(files), paths=_PATHS))
    return [*figures, none_of(f"{what}: programs started and connections opened (strace)", calls, len(fed.ms))]


def check_slow(_: argparse.Namespace) -> list[Figure]:
    """Five hundred slow sockets for a minute."""
    with serve() as service:
        return asyncio.run(slow.measure(service, sockets=500, seconds=60, closed_within_s=16))


def check_connections(_: argparse.Namespace) -> list[Figure]:
    """Connections at the limit, and answers that are read slowly."""
    with serve() as service:
        figures = asyncio.run(slow.measure_at_limit(service, limit=1024, per_s=270, seconds=20))
    with serve() as service:
        return [*figures, *asyncio.run(slow.measure_readers(service, readers=16, write_timeout_s=10, seconds=60))]


def check_memory(_: argparse.Namespace) -> list[Figure]:
    """Pictures and answers that cost much memory, against the settings as they come."""
    with serve() as service:
        pictures = memory.make_costly_pictures(5000)
        figures = asyncio.run(memory.send_costly_pictures(service, pictures, _MEMORY_MB))
    with serve() as service:
        return [
            *figures,
            *asyncio.run(memory.read_slowly(service, readers=40, seconds=60, side=5000, bar_mb=_MEMORY_MB)),
        ]


def check_overload(_: argparse.Namespace) -> list[Figure]:
    """Five times the capacity for a minute."""
    if shutil.which("h2load") is None:
        return [Figure("overload", "not run: no h2load (Debian package nghttp2-client)", passed=False)]
    options = overload.read_options(["--seconds", "60"])
    with serve() as service:
        found = overload.run(service, options)
    what, silent = "five times the capacity for 60 s", [""] * found["refusals_without_retry_after"]
    return [
        at_least(f"{what}: answered of the capacity", found["goodput_of_capacity"], 0.9, ""),
        at_most(f"{what}: refusals, 99th percentile", found["refused_p99_ms"], 50, "ms"),
        at_most(f"{what}: /healthz, 99th percentile", found["health_p99_ms"], 100, "ms"),
        none_of(
            f"{what}: refusals without Retry-After",
            silent,
            found["refusals_read"],
        ),
        none_of(f"{what}: statuses beside 200 and 503", [str(one) for one in found["other_statuses"]], 2),
    ]


def check_tests(_: argparse.Namespace) -> list[Figure]:
    """Goals that are tests: run in full."""
    figures = []
    for goal, files in TESTS.items():
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", *files]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        last = done.stdout.strip().splitlines()[-1].strip("= ") if done.stdout.strip() else done.stderr[-200:]
        figures.append(Figure(f"{goal} (pytest {' '.join(files)})", last, done.returncode == 0))
    return figures


def check_calls(_: argparse.Namespace) -> list[Figure]:
    """The gRPC port: broken messages, broken streams of HTTP/2, and messages that would become much."""
    figures = []
    with spawn_grpc("--cache-max-bytes", "0") as service:
        for what, sent in {
            f"gRPC, {_CALLS} broken messages (seed {_SEED})": calls.send_messages(
                service, calls.make_messages(_CALLS, _SEED)
            ),
            f"gRPC, {_CALLS} broken streams (seed {_SEED})": calls.send_streams(
                service, calls.make_streams(_CALLS, _SEED)
            ),
            "gRPC, odd streams": calls.send_streams(service, calls.make_odd_streams()),
            "gRPC, messages that would become much": calls.send_messages(service, calls.make_bombs()),
        }.items():
            figures += asyncio.run(calls.send_and_judge(what, service, sent, settled=_SETTLED_CALLS))
    return figures


def check_soak(options: argparse.Namespace) -> list[Figure]:
    """An hour at 70 % of the capacity; then beside a service that has not had it."""
    with serve() as aged:
        figures = asyncio.run(soak.measure(aged, seconds=options.soak_seconds))
        with serve() as fresh:
            return [*figures, *asyncio.run(soak.compare(aged, fresh))]


# The longest first: it looks for drift, and finds the machine as nothing else has left it.
CHECKS: dict[str, Callable[[argparse.Namespace], list[Figure]]] = {
    "soak": check_soak,
    "bombs": check_bombs,
    "costly": check_costly,
    "prefixes": check_prefixes,
    "mutants": check_mutants,
    "whole": check_whole,
    "corpus": check_corpus,
    "slow": check_slow,
    "connections": check_connections,
    "memory": check_memory,
    "calls": check_calls,
    "overload": check_overload,
    "tests": check_tests,
}


def write_page(figures: Sequence[Figure], command: str) -> None:
    """Put the table between the marks of docs/reliability.md."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    head, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    where = (
        f"`{command}` at {commit}, Python {platform.python_version()}, {available_cpus()} CPUs with the client on them."
    )
    PAGE.write_text(f"{head}{BEGIN}\n{where}\n\n{write_table(figures)}{END}{tail}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks, print each figure as it comes; returns 1 if one is out of its bar."""
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__)
    parser.add_argument("--corpus", type=Path, action="append", default=[], help="folder of odd files; may be repeated")
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), default=list(CHECKS), help="these goals alone")
    parser.add_argument("--mutants", type=int, default=_MUTANTS)
    parser.add_argument("--soak-seconds", type=float, default=3600)
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    options = parser.parse_args(arguments)
    figures: list[Figure] = []
    for name in options.only:
        for figure in CHECKS[name](options):
            print(f"{'pass' if figure.passed else 'FAIL'}  {figure.goal} -- {figure.figure}", flush=True)
            figures.append(figure)
    print(f"\n{write_table(figures)}")
    if options.write:
        write_page(figures, "make hostile" if options.only == list(CHECKS) else f"--only {' '.join(options.only)}")
    return 0 if all(one.passed for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
