"""Plant each fault of planted_faults.toml into a copy of the service, and see whether its room's own tests find it.

    python -m tests.repository.plant_faults [--only ROOM.NAME ...] [--checkout FOLDER] [--tests FILE]

A room's own tests are the quick ones in tests/service/ROOM, or tests/service/test_ROOM.py for a room that is one file;
`--tests` names a JSON file that lists others, for checkouts whose tests lie elsewhere. Exits with 1 if a fault is not
found or has no place, or if the tests of a room fail without any fault.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["found", "not found", "no place", "broken"]

CHECKOUT = Path(__file__).parents[2]
FAULTS = Path(__file__).with_name("planted_faults.toml")
# What running needs beside the code: the configuration of pytest, and the notes that tests read.
_COPIED = ("service", "training", "export", "tests", "docs", "docker", "pyproject.toml", "README.md")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "node_modules", ".*")
_QUICK = "not slow and not full"
_PYTEST = ("-m", "pytest", "-x", "-q", "-m", _QUICK, "-p", "no:cacheprovider", "-p", "timeout", "--timeout", "120")
_PASSED, _FAILED = 0, 1  # of pytest; anything else means that it could not even ask
_FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+\.py.*?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        room: of the service, whose tests have to find it.
        name: within the room.
        what: goes wrong then.
        changes: pairs of the right text and the wrong one; the first whose right text is there counts.
    """

    room: str
    name: str
    what: str
    changes: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.room}.{self.name}"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one fault.

    Attributes:
        verdict: `broken` means that the tests could not run, with the fault or without it.
        where: the module that it was planted into.
        words: the test that found it, or what went wrong.
        took_s: seconds.
    """

    verdict: Verdict
    where: str = ""
    words: str = ""
    took_s: float = 0.0


def read_faults(path: Path = FAULTS) -> list[Fault]:
    """Read the faults of a file, in its order."""
    rooms = tomllib.loads(path.read_text(encoding="utf-8"))
    return [
        Fault(room, name, one["what"], tuple((pair["old"], pair["new"]) for pair in (one, *one.get("otherwise", ()))))
        for room, faults in rooms.items()
        for name, one in faults.items()
    ]


def find_place(fault: Fault, root: Path) -> tuple[Path, str]:
    """Find the one module under `root`/service that has a fault's text, and what it would be with the fault.

    Raises:
        LookupError: none of its texts is there, or one is there several times.
    """
    modules = {path: path.read_text(encoding="utf-8") for path in sorted((root / "service").rglob("*.py"))}
    for old, new in fault.changes:
        having = [path for path, text in modules.items() for _ in range(text.count(old))]
        if len(having) > 1:
            names = ", ".join(sorted({str(path.relative_to(root)) for path in having}))
            raise LookupError(f"its text is there {len(having)} times: {names}")
        if having:
            return having[0], modules[having[0]].replace(old, new)
    raise LookupError("its text is nowhere in the service")


def find_tests(room: str, root: Path, named: Mapping[str, Sequence[str]]) -> list[str]:
    """Where a room's own tests lie, relative to the root; empty if nowhere."""
    if room in named:
        return list(named[room])
    places = (f"tests/service/{room}", f"tests/service/test_{room}.py")
    return [place for place in places if (root / place).exists()][:1]


@contextlib.contextmanager
def copy_checkout(checkout: Path) -> Iterator[Path]:
    """A copy to plant faults into, so that they are never in the checkout itself; gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        root = Path(folder)
        for name in _COPIED:
            source = checkout / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=_LEFT_OUT)
            elif source.exists():
                shutil.copy(source, root / name)
        yield root


def run_tests(tests: Sequence[str], root: Path) -> tuple[int, str]:
    """Run tests of a copy; returns pytest's exit code, and the test that failed or the last line it printed."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),  # processes that tests start shall not find an installed service either
        "PYTHONDONTWRITEBYTECODE": "1",  # a module is changed and changed back within the time stamps' second
    }
    done = subprocess.run(
        [sys.executable, *_PYTEST, *tests],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    failure = _FAILURE.search(done.stdout)
    return done.returncode, failure[1] if failure else done.stdout.strip().rpartition("\n")[2]


def ask_twice(tests: Sequence[str], root: Path) -> tuple[int, str, list[str]]:
    """Run tests likewise; one that fails and then passes says nothing, and only the others count.

    Returns:
        Code and words as `run_tests`, and the tests without those that say nothing.
    """
    steady = list(tests)
    while True:
        code, words = run_tests(steady, root)
        if code != _FAILED or "::" not in words or run_tests([words], root)[0] != _PASSED:
            return code, words, steady
        steady += ["--deselect", words]


def judge(fault: Fault, root: Path, tests: Sequence[str]) -> Result:
    """Plant one fault into a copy, run tests, and take it out again."""
    try:
        module, faulty = find_place(fault, root)
    except LookupError as error:
        return Result("no place", words=str(error))
    where, sound, started = str(module.relative_to(root)), module.read_text(encoding="utf-8"), time.monotonic()
    module.write_text(faulty, encoding="utf-8")
    try:
        code, words, _ = ask_twice(tests, root)
    finally:
        module.write_text(sound, encoding="utf-8")
    verdicts: dict[int, Verdict] = {_PASSED: "not found", _FAILED: "found"}
    return Result(verdicts.get(code, "broken"), where, words, time.monotonic() - started)


def judge_all(
    faults: Sequence[Fault], root: Path, named: Mapping[str, Sequence[str]]
) -> Iterator[tuple[Fault, Result]]:
    """Judge faults one by one, each by its room's tests, which have to pass without any fault."""
    rooms: dict[str, tuple[str, list[str]]] = {}
    for fault in faults:
        if fault.room not in rooms:
            tests = find_tests(fault.room, root, named)
            code, words, steady = ask_twice(tests, root) if tests else (_FAILED, "the room has no tests", tests)
            rooms[fault.room] = "" if code == _PASSED else f"without any fault: {words}", steady
        complaint, steady = rooms[fault.room]
        yield fault, Result("broken", words=complaint) if complaint else judge(fault, root, steady)


def main() -> int:
    """Print a line for each fault, and how many were found."""
    parser = argparse.ArgumentParser("plant_faults", description="See which planted faults the unit tests find.")
    parser.add_argument("--only", nargs="+", metavar="ROOM.NAME", help="these faults; ROOM alone: all of that room")
    parser.add_argument("--checkout", type=Path, default=CHECKOUT, help="of the service (default: this one)")
    parser.add_argument("--tests", type=Path, metavar="FILE", help="JSON: the tests of each room, as a list of paths")
    options = parser.parse_args()
    named = json.loads(options.tests.read_text()) if options.tests is not None else {}
    chosen = [one for one in read_faults() if options.only is None or {str(one), one.room} & set(options.only)]
    verdicts: list[Verdict] = []
    with copy_checkout(options.checkout.resolve()) as root:
        for fault, result in judge_all(chosen, root, named):
            verdicts.append(result.verdict)
            details = f"{result.where:36}  {result.took_s:5.1f} s  {result.words}"
            _say(f"{fault!s:28}  {result.verdict:9}  {details}")
    _say(f"{verdicts.count('found')} of {len(verdicts)} faults found")
    return 0 if verdicts and set(verdicts) == {"found"} else 1


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
