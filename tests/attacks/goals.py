"""A goal, and what was measured: the rows of the table that `make hostile` ends with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    Attributes:
        goal: what must hold, with its bar.
        figure: what was measured.
        passed: whether the figure is within the bar.
    """

    goal: str
    figure: str
    passed: bool


def at_most(goal: str, value: float, bar: float, unit: str, *, digits: int = 1) -> Figure:
    """A figure that may not be above its bar."""
    return Figure(f"{goal}: at most {bar:g} {unit}", f"{value:.{digits}f} {unit}", value <= bar)


def at_least(goal: str, value: float, bar: float, unit: str, *, digits: int = 3) -> Figure:
    """A figure that may not be below its bar."""
    return Figure(f"{goal}: at least {bar:g} {unit}".rstrip(), f"{value:.{digits}f} {unit}".rstrip(), value >= bar)


def none_of(goal: str, found: Sequence[str], among: int) -> Figure:
    """A figure that passes where nothing was found; the first that were found are named."""
    named = f": {'; '.join(found[:3])}" if found else ""
    return Figure(f"{goal}: none", f"{len(found)} of {among}{named}", not found)


def write_table(figures: Sequence[Figure]) -> str:
    """Markdown: goal, figure, pass or fail."""
    rows = [f"| {one.goal} | {one.figure} | {'pass' if one.passed else '**fail**'} |" for one in figures]
    return "\n".join(["| goal | figure | |", "|---|---|---|", *rows]) + "\n"


def require(figures: Sequence[Figure]) -> None:
    """Fail a test that has a figure out of its bar."""
    failed = [f"{one.goal} -- {one.figure}" for one in figures if not one.passed]
    assert not failed, "\n".join(failed)
