"""Charts as inline SVG by hand: text stays text, and the page's style sheet colours them for light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from training.data.doctor.html import charts, svg

_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 12, 42  # margins; in SVG units
_MARKED_POINTS = 25  # a line of more points has no markers
NUM_TONES = 6


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart, from left to right.

    Attributes:
        name: for the legend.
        points: x and y.
        tone: which of the page's colours, 0..5; None is the colour of text.
        dashed: drawn so.
    """

    name: str
    points: Sequence[tuple[float, float]]
    tone: int | None = 0
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """From 0 or 1 up.

    Attributes:
        label: what is measured, with its unit.
        low, high: its ends.
        ticks: where a number stands.
    """

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]


def make_axis(label: str, highest: float) -> Axis:
    """An axis from 0 to a round number that is not below `highest`, with four steps."""
    top = svg.nice_ceiling(highest) if highest > 0 else 1.0
    return Axis(label, 0.0, top, tuple(top * step / 4 for step in range(5)))


def make_count_axis(label: str, high: int) -> Axis:
    """An axis of whole numbers from 0, with at most seven of them."""
    step = next(step for power in range(9) for step in (10**power, 2 * 10**power, 5 * 10**power) if high <= 6 * step)
    return Axis(label, 0, max(high, 1), tuple(range(0, high + 1, step)))


def legend(lines: Sequence[Line]) -> str:
    """Say which colour is which line."""
    return colour_keys((_tone(line.tone) + (" dashed" if line.dashed else ""), line.name) for line in lines)


def colour_keys(named: Iterable[tuple[str, str]], *remarks: str) -> str:
    """Say what each tone stands for; remarks come after them."""
    keys = [f'<li><span class="key {tone}"></span>{escape(name)}</li>' for tone, name in named]
    return f'<ul class="legend">{"".join([*keys, *(f"<li>{remark}</li>" for remark in remarks)])}</ul>'


def line_chart(
    lines: Sequence[Line],
    x: Axis,
    y: Axis,
    *,
    spoken: str,
    width: int = 360,
    height: int = 240,
    bands: Sequence[tuple[float, float, str]] = (),
) -> str:
    """Lines over a grid.

    Args:
        lines: the last on top.
        x: axis of the points' first numbers.
        y: axis of the second; what lies beyond is drawn at its end.
        spoken: what the chart shows, for those who cannot see it.
        width: of the drawing; in SVG units.
        height: of the drawing; in SVG units.
        bands: parts of the x axis, from, to and name; every other one is shaded.
    """
    right, bottom = width - _RIGHT, height - _BOTTOM

    def across(value: float) -> float:
        return _LEFT + (right - _LEFT) * (value - x.low) / (x.high - x.low)

    def up(value: float) -> float:
        return bottom - (bottom - _TOP) * (min(max(value, y.low), y.high) - y.low) / (y.high - y.low)

    parts = []
    for number, (start, end, name) in enumerate(bands):
        if number % 2 == 0:
            parts.append(svg.bar("band", across(start), _TOP, across(end) - across(start), bottom - _TOP))
        parts.append(svg.text((across(start) + across(end)) / 2, _TOP + 13, name, "middle"))
    parts += [svg.rule(_LEFT, right, up(tick), _format_tick(tick)) for tick in y.ticks]
    parts += [svg.text(across(tick), bottom + 16, f"{tick:.3g}", "middle") for tick in x.ticks]
    parts.append(svg.text((_LEFT + right) / 2, bottom + 35, x.label, "middle"))
    parts.append(
        f'<text x="12" y="{(_TOP + bottom) / 2:.1f}" text-anchor="middle"'
        f' transform="rotate(-90 12 {(_TOP + bottom) / 2:.1f})">{escape(y.label)}</text>'
    )
    for line in lines:
        points = [(across(one), up(other)) for one, other in line.points]
        if len(points) > 1:
            path = " ".join(f"{one:.1f},{other:.1f}" for one, other in points)
            parts.append(
                f'<polyline class="line {_tone(line.tone)}{" dashed" if line.dashed else ""}" points="{path}"/>'
            )
        if len(points) <= _MARKED_POINTS:
            parts += [
                f'<circle class="dot {_tone(line.tone)}" cx="{one:.1f}" cy="{other:.1f}" r="3"><title>'
                f"{escape(line.name)}, {escape(x.label)} {at:.4g}: {value:.4g}</title></circle>"
                for (one, other), (at, value) in zip(points, line.points, strict=True)
            ]
    return svg.drawing(spoken, width, height, parts)


def reliability_chart(counts: Sequence[int], scores: Sequence[float | None], shares: Sequence[float | None]) -> str:
    """Bars of the share that is right in each bin of scores, beside the diagonal that they should follow.

    Args:
        counts: answers in each bin; the bins cut 0..1 into equal parts.
        scores: mean score of each bin.
        shares: share of its answers that are right.
    """
    width, height, strip = 360, 300, 58  # the strip below shows how many answers a bin has
    right, bottom = width - _RIGHT, height - _BOTTOM - strip
    step, most = (right - _LEFT) / len(counts), max(*counts, 1)
    parts = []
    for tick in range(5):
        y = bottom - (bottom - _TOP) * tick / 4
        parts.append(svg.rule(_LEFT, right, y, f"{tick / 4:.3g}"))
        parts.append(svg.text(_LEFT + (right - _LEFT) * tick / 4, height - _BOTTOM + 16, f"{tick / 4:.3g}", "middle"))
    for place, (count, score, share) in enumerate(zip(counts, scores, shares, strict=True)):
        if score is None or share is None:
            continue
        left, tall = _LEFT + place * step, (bottom - _TOP) * share
        tip = f"{count:,} answers, mean score {score:.3f}, right {share:.1%}"
        parts.append(svg.bar("s0", left + 2, bottom - tall, step - 4, tall, tip))
        parts.append(
            f'<circle class="dot s1" cx="{_LEFT + (right - _LEFT) * score:.1f}" cy="{bottom - tall:.1f}" r="4"/>'
        )
        few = (strip - 28) * count / most
        foot = height - _BOTTOM - few
        parts.append(svg.bar("muted", left + 2, foot, step - 4, few))
        parts.append(svg.text(left + step / 2, foot - 3, charts.short(count), "middle", "count"))
    parts.append(f'<line class="diagonal" x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{_TOP}"/>')
    parts.append(svg.text((_LEFT + right) / 2, height - 7, "score; below: answers in each bin", "middle"))
    spoken = "; ".join(
        f"{count} answers with mean score {score:.2f} are right in {share:.0%}"
        for count, score, share in zip(counts, scores, shares, strict=True)
        if score is not None and share is not None
    )
    return svg.drawing(f"Reliability diagram. {spoken}", width, height, parts)


def matrix_chart(counts: Sequence[Sequence[int]], names: Sequence[str], unit: str) -> str:
    """A confusion matrix: a row a true class, a column a predicted one, shaded by the share of the row.

    Args:
        counts: by true class, then by predicted class.
        names: of the classes.
        unit: what is counted, such as "pixels".
    """
    cell, top, left = 34, 96, 104  # px of a cell, and where the first one begins
    size = len(names) * cell
    parts = []
    for row, name in enumerate(names):
        total = sum(counts[row])
        middle = cell * row + cell / 2
        foot = f"{left + middle + 4:.1f} {top - 7}"
        parts.append(svg.text(left - 6, top + middle + 4, name, "end"))
        parts.append(f'<text transform="translate({foot}) rotate(-50)">{escape(name)}</text>')
        for column, count in enumerate(counts[row]):
            if not count:
                continue
            share = count / total
            tip = f"{name} taken for {names[column]}: {count:,} {unit}, {share:.1%} of the row"
            tone = "s0" if row == column else "s3"
            x, y = left + column * cell, top + row * cell
            parts.append(svg.bar(tone, x, y, cell, cell, tip, f' fill-opacity="{share:.3f}"'))
            if share >= 0.005:  # noqa: PLR2004 - what rounds to 0 % stays blank
                strong = " strong" if share > 0.55 else ""  # noqa: PLR2004 - where the cell is darker than the page
                parts.append(svg.text(x + cell / 2, y + cell / 2 + 4, f"{100 * share:.0f}", "middle", f"share{strong}"))
    for step in range(len(names) + 1):
        at = step * cell
        parts.append(f'<line class="grid" x1="{left}" y1="{top + at}" x2="{left + size}" y2="{top + at}"/>')
        parts.append(f'<line class="grid" x1="{left + at}" y1="{top}" x2="{left + at}" y2="{top + size}"/>')
    right = sum(counts[each][each] for each in range(len(names))) / max(1, sum(map(sum, counts)))
    width, height = left + size + 70, top + size + 8
    drawing = svg.drawing(
        f"Confusion matrix of {len(names)} classes; on the diagonal {right:.1%}", width, height, parts
    )
    return f'<div class="scroll"><div class="matrix" style="--size:{width}px">{drawing}</div></div>'


def _format_tick(value: float) -> str:
    if 0 < value < 0.01:  # noqa: PLR2004 - from there on the zeros would not fit
        digits, exponent = f"{value:.1e}".split("e")
        return f"{digits.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.3g}"


def _tone(tone: int | None) -> str:
    return "ink" if tone is None else f"s{tone % NUM_TONES}"
