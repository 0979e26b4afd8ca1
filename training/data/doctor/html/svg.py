"""What all drawings on our pages are made of: inline SVG by hand, coloured by a page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from typing import Final

LOGO: Final = (
    '<svg viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="7" fill="#173f5f"/>'
    '<path d="M6 23c4-9 7-9 10-4s6 1 10-6v10a3 3 0 0 1-3 3H9a3 3 0 0 1-3-3z" fill="#3caea3"/>'
    '<rect x="8" y="7" width="13" height="11" rx="1" fill="none" stroke="#f6d55c" stroke-width="2.5"/></svg>'
)
_ROUND = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 5, 6, 8, 10)


def page(title: str, style: str, subtitle: str, body: str, footer: str, heading: str = "") -> str:
    """A page that needs nothing beside it; all but the titles is markup or a style sheet."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<header>{LOGO}<div><h1>{escape(heading or title)}</h1><p>{escape(subtitle)}</p></div></header>
<main>
{body}</main>
<footer>{footer}</footer>
</body>
</html>
"""


def drawing(spoken: str, width: int, height: int, parts: Iterable[str]) -> str:
    """A drawing of `parts`, which are markup; `spoken` is what it shows, for those who cannot see it."""
    label = escape(spoken, quote=True)
    return f'<svg role="img" aria-label="{label}" viewBox="0 0 {width} {height}">{"".join(parts)}</svg>'


def text(x: float, y: float, words: str, anchor: str, style: str = "") -> str:
    """Words with their foot at a point; `anchor` says which part of them: start, middle or end."""
    return f'<text{_class(style)} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def bar(style: str, x: float, y: float, width: float, height: float, tip: str = "", more: str = "") -> str:
    """A rectangle of a class of the style sheet, with what a pointer is told over it, and further attributes."""
    title = f"<title>{escape(tip)}</title>" if tip else ""
    sides = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f"<rect{_class(style)} {sides}{more}>{title}</rect>"


def _class(style: str) -> str:
    return f' class="{style}"' if style else ""


def rule(left: float, right: float, y: float, label: str) -> str:
    """A line of the grid from `left` to `right`, and what it stands for before it."""
    line = f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
    return line + text(left - 6, y + 4, label, "end")


def nice_ceiling(value: float) -> float:
    """The next number above a positive one whose quarters are short: 1, 1.2, 1.6, 2 ... 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in _ROUND if step * power >= value * 0.999)
