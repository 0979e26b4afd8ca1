"""What a run over many files came to, for a person: a line while it goes on, a table at its end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from service.commands.results import Record
from service.words import make_printable

_REDRAW_S = 0.1
_MOST_LABELS = 8
_MOST_LISTED = 20


class Tally:
    """Counts records.

    Attributes:
        answered, failed, earlier: pictures with an answer, without one, and with one from an earlier run.
    """

    def __init__(self) -> None:
        self.answered = self.earlier = 0
        self.failed: list[str] = []
        self._objects: Counter[str] = Counter()
        self._scenes: Counter[str] = Counter()
        self._areas: Counter[str] = Counter()
        self._ms: Counter[str] = Counter()
        self._timed: Counter[str] = Counter()

    def add(self, record: Record, *, earlier: bool = False) -> None:
        """Count one picture."""
        if "error" in record:
            self.failed.append(describe(record))
            return
        self._objects.update(one["label"] for one in record.get("detections", ()))
        self._scenes.update(one["label"] for one in record.get("classes", ())[:1])
        self._areas.update(one["label"] for one in record.get("segments", ()))
        if earlier:
            self.earlier += 1
            return
        self.answered += 1
        self._ms.update(record["timing_ms"])
        self._timed.update(record["timing_ms"].keys())

    def format(self, seconds: float, left_out: Mapping[Path, str] | None = None) -> str:
        """Write the table; does nothing to a terminal.

        Args:
            seconds: that this run took.
            left_out: what is no picture, and why.
        """
        counts = f"{self.answered} answered, {len(self.failed)} failed"
        rows = [("pictures", f"{counts}, {self.earlier} from an earlier run" if self.earlier else counts)]
        for name, found in (("objects", self._objects), ("first class", self._scenes), ("in masks", self._areas)):
            if found:
                rest = len(found) - _MOST_LABELS
                labels = ", ".join(f"{label} {count}" for label, count in found.most_common(_MOST_LABELS))
                rows.append((name, f"{labels}, {rest} others" if rest > 0 else labels))
        if self.answered:
            means = {stage: self._ms[stage] / self._timed[stage] for stage in self._ms}
            rows.append(("ms a picture", "  ".join(f"{stage} {ms:.2f}" for stage, ms in means.items())))
            rows.append(("pictures/s", f"{(self.answered + len(self.failed)) / seconds:.1f}"))
        lines = [f"{name:12}  {text}" for name, text in rows]
        lines += _list("failed", self.failed)
        lines += _list("left out", [f"{path}: {why}" for path, why in (left_out or {}).items()])
        return "\n".join(map(make_printable, lines))


def _list(name: str, entries: Sequence[str]) -> Iterator[str]:
    """The first of them, a line each, and how many others there are."""
    yield from (f"{name:12}  {entry}" for entry in entries[:_MOST_LISTED])
    if len(entries) > _MOST_LISTED:
        yield f"{name:12}  {len(entries) - _MOST_LISTED} others"


class Progress:
    """One line on a terminal that is drawn over; nothing elsewhere."""

    def __init__(self, stream: TextIO, total: int, *, shown: bool) -> None:
        """Show nothing yet.

        Args:
            stream: a terminal.
            total: pictures to come.
            shown: False shows nothing at all.
        """
        self._stream, self._total, self._shown = stream, total, shown
        self._started = self._drawn = time.monotonic()

    def update(self, done: int, failed: int) -> None:
        """Say how far it is, not more often than an eye sees."""
        now = time.monotonic()
        if not self._shown or now - self._drawn < _REDRAW_S:
            return
        self._drawn = now
        pace = done / (now - self._started)
        left = f"{(self._total - done) / pace:.0f} s left" if pace else ""
        trouble = f", {failed} failed" if failed else ""
        text = f"{done} of {self._total} pictures, {pace:.1f}/s, {left}{trouble}"
        self._stream.write(f"\r\x1b[K{text}")
        self._stream.flush()

    def clear(self) -> None:
        """Leave no trace."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def describe(record: Record) -> str:
    """One line about one picture; does nothing to a terminal."""
    name = record["file"]
    if "error" in record:
        return make_printable(f"{name}: {record['error']['code']}: {record['error']['detail']}")
    parts = []
    if "detections" in record:
        parts.append(", ".join(f"{one['label']} {one['score']:.2f}" for one in record["detections"]) or "no objects")
    if "classes" in record:
        parts.append(", ".join(f"{one['label']} {one['probability']:.2f}" for one in record["classes"][:1]))
    if "segments" in record:
        parts.append(", ".join(f"{one['label']} {one['fraction']:.0%}" for one in record["segments"]))
    return make_printable(f"{name}: {' | '.join(parts)}")
