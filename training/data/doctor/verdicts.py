"""What was found in files that have not changed since: kept on disk, so that the next round does not decode them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

import numpy as np
import PIL
import simplejpeg

import service.pictures
from training.data.doctor.pictures import Fault, MaskFacts, PictureFacts, inspect_mask, inspect_picture
from training.data.layouts import masks, outlines
from training.data.layouts.outlines import Outlines

CACHE_NAME: Final = "doctor"  # the folder, in that of all caches
DATABASE_NAME: Final = "verdicts.sqlite3"
# 0.6 KB a picture: 300 MB.
MOST_VERDICTS: Final = 500_000
# A file that was written just now may be written again within the same tick of its file system's clock.
_SETTLED_NS: Final = 2_000_000_000
_AT_ONCE: Final = 1000
_DAY_NS: Final = 86_400 * 10**9
_SCHEMA: Final = """
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS verdicts (
    path BLOB, kind TEXT, stamp TEXT, facts TEXT, crc INTEGER, used INTEGER, PRIMARY KEY (path, kind)
) WITHOUT ROWID;
"""

Place = TypeVar("Place", Path, Path | Outlines)
Facts = TypeVar("Facts", PictureFacts, MaskFacts)


class _Stamp(NamedTuple):
    text: str
    changed_ns: int


@dataclass(frozen=True, slots=True)
class Check(Generic[Place, Facts]):
    """One way of looking at files.

    Attributes:
        kind: its name.
        inspect: looks.
        encode, decode: facts to and from what JSON can hold.
    """

    kind: str
    inspect: Callable[[Place], Facts]
    encode: Callable[[Facts], Any]
    decode: Callable[[Any], Facts]


def _decode_faults(faults: Any) -> tuple[Fault, ...]:  # noqa: ANN401 - JSON
    return tuple((str(code), str(detail)) for code, detail in faults)


def _decode_size(size: Any) -> tuple[int, int] | None:  # noqa: ANN401 - JSON
    return None if size is None else (int(size[0]), int(size[1]))


def _encode_picture(facts: PictureFacts) -> Any:  # noqa: ANN401 - JSON
    thumbnail = None if facts.thumbnail is None else facts.thumbnail.tolist()
    return [facts.sha256, facts.size, thumbnail, facts.faults]


def _decode_picture(values: Any) -> PictureFacts:  # noqa: ANN401 - JSON
    sha256, size, thumbnail, faults = values
    grey = None if thumbnail is None else np.array(thumbnail, dtype=np.uint8)
    return PictureFacts(str(sha256), _decode_size(size), grey, _decode_faults(faults))


def _encode_mask(facts: MaskFacts) -> Any:  # noqa: ANN401 - JSON
    pixels = facts.pixels_by_value
    held = None if pixels is None else [(value, count) for value, count in enumerate(pixels) if count]
    return [facts.size, held, facts.faults]


def _decode_mask(values: Any) -> MaskFacts:  # noqa: ANN401 - JSON
    size, held, faults = values
    pixels = None
    if held is not None:
        counts = {int(value): int(count) for value, count in held}
        pixels = tuple(counts.get(value, 0) for value in range(256))
    return MaskFacts(_decode_size(size), pixels, _decode_faults(faults))


PICTURES: Final = Check("picture", inspect_picture, _encode_picture, _decode_picture)
MASKS: Final = Check("mask", inspect_mask, _encode_mask, _decode_mask)


class Verdicts:
    """The verdicts of earlier rounds, in one file of the user's cache; as a context manager it is closed at the end.

    A verdict counts for a file of the same path, length, and times of change, seen by the same code and libraries. What
    cannot be read or written is as if there were none: a file that is damaged, another user's, on a full disk.
    """

    def __init__(
        self,
        folder: Path | None,
        pool: Executor,
        *,
        clock: Callable[[], int] = time.time_ns,
        most: int = MOST_VERDICTS,
    ) -> None:
        """Open the file.

        Args:
            folder: that holds it, made if it does not exist; None keeps nothing.
            pool: looks at several files at once.
            clock: of the file system, in nanoseconds.
            most: verdicts that are kept; those that were of no use for longest go.
        """
        self._pool = pool
        self._clock = clock
        self._most = most
        self._database = None if folder is None else _open(folder / DATABASE_NAME)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._database is None:
            return
        with contextlib.suppress(sqlite3.Error):
            ((count,),) = self._database.execute("SELECT count(*) FROM verdicts")
            with self._database:
                self._database.execute(
                    "DELETE FROM verdicts WHERE (path, kind) IN "
                    "(SELECT path, kind FROM verdicts ORDER BY used LIMIT ?)",
                    (max(0, count - self._most),),
                )
        self._database.close()

    def inspect(self, check: Check[Place, Facts], places: Sequence[Place]) -> Iterator[Facts]:
        """Look at files, those of them that are unknown or have changed; give the facts of each in their order.

        Args:
            check: how to look at them.
            places: the files; what is no file is looked at in any case.
        """
        for start in range(0, len(places), _AT_ONCE):
            some = places[start : start + _AT_ONCE]
            stamps = [_stamp(place) for place in some]
            known = self._read(check, some, stamps)
            unknown = [index for index, facts in enumerate(known) if facts is None]
            found = dict(zip(unknown, self._pool.map(check.inspect, [some[index] for index in unknown]), strict=True))
            self._write(check, [(some[index], stamps[index], facts) for index, facts in found.items()])
            for index, facts in enumerate(known):
                yield found[index] if facts is None else facts

    def _read(
        self, check: Check[Place, Facts], places: Sequence[Place], stamps: Sequence[_Stamp | None]
    ) -> list[Facts | None]:
        """What is known of each file, as far as it has the stamp that it had."""
        if self._database is None:
            return [None] * len(places)
        known: list[Facts | None] = []
        used: list[tuple[int, bytes, str]] = []
        now = self._clock()
        for place, stamp in zip(places, stamps, strict=True):
            facts = None
            with contextlib.suppress(sqlite3.Error, ValueError, TypeError):
                row = self._database.execute(
                    "SELECT facts, crc, used FROM verdicts WHERE path = ? AND kind = ? AND stamp = ?",
                    (_key(place), check.kind, stamp and stamp.text),
                ).fetchone()
                if row is not None and zlib.crc32(row[0].encode()) == row[1]:
                    facts = check.decode(json.loads(row[0]))
                    if now - row[2] > _DAY_NS:
                        used.append((now, _key(place), check.kind))
            known.append(facts)
        self._execute("UPDATE verdicts SET used = ? WHERE path = ? AND kind = ?", used)
        return known

    def _write(self, check: Check[Place, Facts], found: Sequence[tuple[Place, _Stamp | None, Facts]]) -> None:
        if self._database is None:
            return
        now = self._clock()
        rows = []
        for place, stamp, facts in found:
            # Of what changed while it was looked at, and of what may change unseen, nothing is kept.
            if stamp is not None and stamp == _stamp(place) and now - stamp.changed_ns > _SETTLED_NS:
                text = json.dumps(check.encode(facts))
                rows.append((_key(place), check.kind, stamp.text, text, zlib.crc32(text.encode()), now))
        self._execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _execute(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error), self._database:
                self._database.executemany(statement, rows)


def _open(path: Path) -> sqlite3.Connection | None:
    """Open the file, a new one in place of one that is damaged; None where there can be none."""
    for _ in range(2):
        database = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(path, timeout=1)
            database.executescript(_SCHEMA)
            if database.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
                return database
            raise sqlite3.DatabaseError("damaged")
        except sqlite3.OperationalError:  # locked, read-only, a full disk: it may be sound
            if database is not None:
                database.close()
            return None
        except sqlite3.DatabaseError:
            if database is not None:
                database.close()
            with contextlib.suppress(OSError):
                path.unlink()
        except OSError:
            return None
    return None


def _key(place: Path | Outlines) -> bytes:
    # Without following links, in a tenth of the time of `resolve`.
    return os.fsencode(os.path.abspath(place)) if isinstance(place, Path) else b""  # noqa: PTH100


def _stamp(place: Path | Outlines) -> _Stamp | None:
    """What a file cannot be changed without, and what looks at it; None if there is no file."""
    if not isinstance(place, Path):
        return None
    try:
        status = place.stat()
    except OSError:
        return None
    text = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino} {_version()}"
    return _Stamp(text, max(status.st_mtime_ns, status.st_ctime_ns))


@functools.cache
def _version() -> str:
    """A digest of the code that looks at files, and the versions of what decodes them."""
    digest = hashlib.sha256(f"{PIL.__version__} {simplejpeg.__version__} {np.__version__}".encode())
    sources = [Path(str(module.__file__)) for module in (masks, outlines)]
    sources += [Path(__file__).with_name("pictures.py"), Path(__file__)]
    sources += sorted(Path(service.pictures.__path__[0]).glob("*.py"))
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
