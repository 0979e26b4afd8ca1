"""What a reader does about a fault in the data: refuse all of it, or leave one entry out and go on."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path


class DataError(ValueError):
    """The data on disk is not what was asked for; the sentence names the file."""


class DataWarning(UserWarning):
    """The data on disk has a fault that was mended by leaving something out."""


class Faults:
    """The training reader's answer to faults: it stops at the first that cannot be mended, and counts the others.

    The doctor hands in one that stops at none. A reader that has called `refuse` leaves the entry out, for the call
    may come back.
    """

    def __init__(self) -> None:
        self._mended: dict[tuple[Path, str], list[str]] = defaultdict(list)

    def refuse(self, code: str, path: Path, sentence: str, *, entry: object = None) -> None:
        """Meet a fault that nobody can mend.

        Args:
            code: as the doctor has it (`training.data.doctor.codes`).
            path: the file or folder at fault.
            sentence: what came, and what to do.
            entry: the row at fault, where there is one: "annotation 7", "line 3".

        Raises:
            DataError: always, but for the doctor.
        """
        del code
        raise DataError(f"{path}{_place(entry)}: {sentence}")

    def mend(self, code: str, path: Path, sentence: str, *, entry: object = None) -> None:
        """Meet a fault that is mended by leaving the entry out; arguments as in `refuse`."""
        self._mended[path, code].append(f"{_place(entry).removeprefix(', ')}: {sentence}".removeprefix(": "))

    def note(self, code: str, path: Path, sentence: str, *, entry: object = None) -> None:
        """Meet what training can live with and only the doctor tells; arguments as in `refuse`."""

    def describe(self) -> list[str]:
        """One line for each kind of mended fault in each file, with its first example."""
        return [
            f"{path}: {len(cases)} {code} mended, such as {cases[0]}" for (path, code), cases in self._mended.items()
        ]


def _place(entry: object) -> str:
    return "" if entry is None else f", {entry}"
