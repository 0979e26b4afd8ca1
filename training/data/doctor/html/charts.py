"""Small charts for the doctor's page: inline SVG or table bars by hand, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from statistics import median
from typing import Final

from training.data.doctor.findings import SplitSummary
from training.data.doctor.html import svg

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 480, 44, 12, 12, 40  # of the drawing and its margins; in SVG units
_HISTOGRAM_HEIGHT, _SCATTER_HEIGHT = 250, 250
_MAX_EXPONENT = 10  # box sides of 1024 px and more share the last bin
_CELLS = 40  # picture sizes are gathered on a grid of so many cells along the longer axis
_ROWS_IN_SIGHT = 100
ONE_COLUMN: Final = 21  # as many classes as one table shows; more are laid out in two
_SKEWED = 8  # largest share over median share, from which on short bars could not be told apart


def legend(splits: Sequence[SplitSummary]) -> str:
    """Say which colour is which split."""
    keys = (
        f'<li><span class="key s{index % 4}"></span>{escape(split.name)}</li>' for index, split in enumerate(splits)
    )
    return f'<ul class="legend" aria-label="Colours">{"".join(keys)}</ul>'


def class_bars(splits: Sequence[SplitSummary], unit: str) -> str:
    """Tables with a row for each class, the most frequent first, and a bar for its share of each split.

    Args:
        splits: what to compare; the first gives the order.
        unit: what is counted, such as "boxes".
    """
    names = {name for split in splits for name in split.class_counts}
    ranked = sorted(names, key=lambda name: (*(-split.class_counts.get(name, 0) for split in splits), name))
    totals = [sum(split.class_counts.get(name, 0) for name in names) for split in splits]
    shares = {
        name: [split.class_counts.get(name, 0) / max(1, total) for split, total in zip(splits, totals, strict=True)]
        for name in ranked
    }
    top = max((share for row in shares.values() for share in row), default=0) or 1
    typical = median([max(row) for row in shares.values()] or [0])
    power, scale = (0.5, " (square-root scale)") if top > _SKEWED * typical else (1.0, "")
    rows = [_class_row(name, splits, [(share / top) ** power for share in shares[name]]) for name in ranked]
    head = "".join(f'<th scope="col" class="number">{escape(split.name)}</th>' for split in splits)
    head = (
        f'<thead><tr><th scope="col">Class</th><th scope="col">Share of {escape(unit)}{scale}</th>{head}</tr></thead>'
    )

    def table(part: list[str]) -> str:
        return f'<table class="classes">{head}<tbody>{"".join(part)}</tbody></table>' if part else ""

    in_sight, rest = rows[:_ROWS_IN_SIGHT], rows[_ROWS_IN_SIGHT:]
    half = math.ceil(len(in_sight) / 2) if len(in_sight) > ONE_COLUMN else len(in_sight)
    shown = f'<div class="columns">{table(in_sight[:half])}{table(in_sight[half:])}</div>'
    return shown + (f"<details><summary>{len(rest)} rarer classes</summary>{table(rest)}</details>" if rest else "")


def _class_row(name: str, splits: Sequence[SplitSummary], lengths: Sequence[float]) -> str:
    counts = [split.class_counts.get(name, 0) for split in splits]
    bars = "".join(
        f'<span class="bar s{index % 4}" style="width:{100 * length:.1f}%"></span>'
        for index, length in enumerate(lengths)
        if counts[index]
    )
    cells = "".join(f'<td class="number{"" if count else " none"}">{short(count)}</td>' for count in counts)
    return f'<tr><th scope="row">{escape(name)}</th><td class="bars" aria-hidden="true">{bars}</td>{cells}</tr>'


def box_sides(splits: Sequence[SplitSummary]) -> str:
    """Histogram of box sides, each bin twice as wide as the one before; shares of each split."""
    counts = [Counter(_exponent(side) for side in split.box_sides_px) for split in splits]
    exponents = range(max((max(count, default=0) for count in counts), default=0) + 1)
    labels = ["< 2", *(f"{2**e}" for e in exponents[1:])]
    shares = [[count[e] / max(1, sum(count.values())) for e in exponents] for count in counts]
    top = svg.nice_ceiling(max((share for row in shares for share in row), default=0) or 1)
    right, bottom = _WIDTH - _RIGHT, _HISTOGRAM_HEIGHT - _BOTTOM
    step = (right - _LEFT) / len(exponents)
    parts = [_horizontal_grid(bottom, lambda fraction: f"{100 * top * fraction:.3g}%")]
    for e, label in zip(exponents, labels, strict=True):
        x = _LEFT + e * step
        # Bins from 2 px on are named by their edge: its tick stands between two bars.
        anchor = x + step / 2 if e == 0 else x
        parts.append(svg.text(anchor, bottom + 16, label, "middle"))
        width = step * 0.8 / len(splits)
        for index, split in enumerate(splits):
            height = (bottom - _TOP) * shares[index][e] / top
            tip = f"{split.name}, {_bin_name(e)}: {counts[index][e]:,} boxes ({shares[index][e]:.1%})"
            left = x + step * 0.1 + index * width
            parts.append(svg.bar(f"s{index % 4}", left, bottom - height, width, height, tip, ' rx="1.5"'))
    parts.append(svg.text((_LEFT + right) / 2, bottom + 34, "square root of the box's area, px", "middle"))
    spoken = "; ".join(
        f"{split.name}: " + ", ".join(f"{_bin_name(e)} {shares[index][e]:.0%}" for e in exponents if counts[index][e])
        for index, split in enumerate(splits)
    )
    return svg.drawing(f"Histogram of box sizes. {spoken}", _WIDTH, _HISTOGRAM_HEIGHT, parts)


def picture_sizes(splits: Sequence[SplitSummary]) -> str:
    """Width against height, a bubble where pictures are, its area by how many; splits lie over one another."""
    sizes = [size for split in splits for size in split.picture_sizes]
    longest = svg.nice_ceiling(1.05 * max((max(size) for size in sizes), default=0) or 1)  # bubbles stick out
    right, bottom = _WIDTH - _RIGHT, _SCATTER_HEIGHT - _BOTTOM
    across, down = (right - _LEFT) / longest, (bottom - _TOP) / longest
    cell = max(1, longest / _CELLS)
    parts = [_horizontal_grid(bottom, lambda fraction: f"{longest * fraction:.0f}")]
    parts += [
        svg.text(_LEFT + longest * i / 4 * across, bottom + 16, f"{longest * i / 4:.0f}", "middle") for i in range(1, 5)
    ]
    parts.append(f'<line class="diagonal" x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{_TOP}"/>')
    for index, split in enumerate(splits):
        bubbles = Counter((round(width / cell), round(height / cell)) for width, height in split.picture_sizes)
        for (column, row), count in sorted(bubbles.items(), key=lambda entry: (-entry[1], entry[0])):
            radius = 2 + 14 * math.sqrt(count / max(1, split.pictures))
            tip = f"{escape(split.name)}, about {column * cell:.0f} x {row * cell:.0f} px: {count:,} pictures"
            parts.append(
                f'<circle class="bubble s{index % 4}" cx="{_LEFT + column * cell * across:.1f}"'
                f' cy="{bottom - row * cell * down:.1f}" r="{radius:.1f}"><title>{tip}</title></circle>'
            )
    parts.append(svg.text((_LEFT + right) / 2, bottom + 34, "width across, height up, px; dashed: square", "middle"))
    widths, heights = sorted(size[0] for size in sizes) or [0], sorted(size[1] for size in sizes) or [0]
    spoken = f"widths {widths[0]} to {widths[-1]} px, heights {heights[0]} to {heights[-1]} px"
    return svg.drawing(f"Picture sizes: {spoken}", _WIDTH, _SCATTER_HEIGHT, parts)


def short(number: int) -> str:
    """A count in at most six characters: 12,345, 123 k or 1.2 M."""
    if number < 100_000:  # noqa: PLR2004 - digits
        return f"{number:,}"
    return f"{number / 1e3:.0f} k" if number < 999_500 else f"{number / 1e6:.1f} M"  # noqa: PLR2004 - rounds to 1.0 M


def _exponent(side: float) -> int:
    return min(_MAX_EXPONENT, int(math.log2(side))) if side >= 2 else 0  # noqa: PLR2004 - bins begin at 2 px


def _bin_name(exponent: int) -> str:
    if exponent == 0:
        return "under 2 px"
    return f"{2**exponent} px and more" if exponent == _MAX_EXPONENT else f"{2**exponent} to {2 ** (exponent + 1)} px"


def _horizontal_grid(bottom: float, label: Callable[[float], str]) -> str:
    return "".join(svg.rule(_LEFT, _WIDTH - _RIGHT, bottom - (bottom - _TOP) * i / 4, label(i / 4)) for i in range(5))
