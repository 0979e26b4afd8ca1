"""Files of every kind, in reduced size; `make hostile` sends a hundred thousand, and whole folders."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.commands.spawn import Spawned, spawn_service
from tests.attacks import doors
from tests.attacks.feeding import feed, find_files, judge, read_twice, reconcile
from tests.attacks.goals import require
from tests.attacks.mutants import make_mutants, make_prefixes, make_seeds
from tests.attacks.watching import answered, scrape

PATHS = ("/predict", "/segment", "/detect", "/classify", "/overlay")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service() -> Iterator[Spawned]:
    with spawn_service(["--log-level", "error"]) as spawned:
        yield spawned


def test_mutants_are_refused_or_answered_and_each_is_counted_once(service: Spawned) -> None:
    before = answered(scrape(service))
    items = ((name, body, "image/jpeg") for name, body in make_mutants(3000, seed=1))
    fed = asyncio.run(feed(service, items, paths=PATHS))
    require(judge("3000 mutants", fed, settled=1000) + reconcile(service, fed.ledger, before))
    assert fed.ledger.count(200) > 100  # else nothing went past the header
    assert fed.ledger.count(422) > 1000


def test_every_prefix_of_a_picture_is_refused_but_where_the_end_alone_is_missing(service: Spawned) -> None:
    seeds = make_seeds()
    chosen = {name: seeds[name] for name in ("baseline.jpg", "rgb.png", "lossless.webp")}
    # An end is the mark of it, and in a PNG the checksum before it. What packs pixels may end, or be padded, with more.
    ends, beyond = {"baseline.jpg": 2, "rgb.png": 12 + 4, "lossless.webp": 0}, {"rgb.png": 8, "lossless.webp": 1}
    prefixes = {name: [body for _, body in make_prefixes({name: chosen[name]})] for name in chosen}
    cut = [body for name, all_ in prefixes.items() for body in all_[: len(all_) - ends[name] - beyond.get(name, 0)]]
    endless = [body for name, all_ in prefixes.items() for body in all_[len(all_) - ends[name] :]]
    for bodies, taken in ((cut, 0), (endless, 2 + 12 + 4)):
        fed = asyncio.run(feed(service, ((f"{len(body)}", body, "image/jpeg") for body in bodies), paths=PATHS))
        require(judge("prefixes", fed, settled=len(bodies)))
        assert fed.ledger.count(200) == taken


def test_a_folder_of_odd_files_reaches_nobody_and_starts_nothing(service: Spawned, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for number, (_, body) in enumerate(make_mutants(60, seed=2)):
        (tmp_path / "deep" / f"{number}.bin").write_bytes(body)
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("https://example.com/picture.png")
    (tmp_path / "page.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    files = find_files(tmp_path)
    assert len(files) == 63
    fed = asyncio.run(feed(service, read_twice(files), paths=PATHS))
    require(judge("folder", fed, settled=len(files)))
    assert len(fed.ms) == 2 * len(files)
    if not doors.has_strace():
        pytest.skip("no strace here (Debian package strace)")
    with doors.trace(service.pid, tmp_path / "strace.log") as calls:
        asyncio.run(feed(service, read_twice(files), paths=PATHS))
    assert calls == []


@pytest.mark.skipif(not doors.has_strace(), reason="no strace here (Debian package strace)")
def test_the_trace_sees_a_program_and_a_connection(tmp_path: Path) -> None:
    script = """
import socket, subprocess, sys
input()
subprocess.run(["true"])
socket.socket().connect_ex(("127.0.0.1", 9))
"""
    with (
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as process,
        doors.trace(process.pid, tmp_path / "strace.log") as calls,
    ):
        process.communicate(b"\n")
    assert any("execve" in call for call in calls)
    assert any("connect" in call for call in calls)
