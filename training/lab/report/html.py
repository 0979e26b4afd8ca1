"""Small pieces of a page: sections, tables, tiles; whatever is not markup is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

METRIC_TITLES = {
    "mean_iou": "mean IoU",
    "foreground_mean_iou": "mean IoU without background",
    "pixel_accuracy": "pixel accuracy",
    "miou_eps_per_image": "not a quality: mIoU as the student report has it",
    "map_50": "mAP@0.5",
    "map_50_95": "mAP@[.5:.95]",
    "top_1": "top-1",
    "top_5": "top-5",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A table's cell that is more than text.

    Attributes:
        html: markup, not escaped again.
        classes: of the cell.
        shade: how strong its background is, 0..1; the class says which colour.
    """

    html: str
    classes: str = ""
    shade: float | None = None


def section(anchor: str, title: str, *parts: str) -> str:
    """A part of the page that the table of contents leads to; `parts` are markup."""
    body = "\n".join(part for part in parts if part)
    return f'<section aria-labelledby="{anchor}">\n<h2 id="{anchor}">{escape(title)}</h2>\n{body}\n</section>\n'


def table(head: Sequence[str], rows: Sequence[Sequence[str | Cell]], *, numbers_from: int = 1) -> str:
    """A table that scrolls where it is too wide; the first cell of a row is its header.

    Args:
        head: column titles, text.
        rows: text, or cells.
        numbers_from: the first column that is aligned to the right.
    """
    titles = "".join(
        f'<th scope="col"{" class=number" if place >= numbers_from else ""}>{escape(title)}</th>'
        for place, title in enumerate(head)
    )
    body = "".join(
        f"<tr>{''.join(_cell(place, each, numbers_from) for place, each in enumerate(row))}</tr>\n" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _cell(place: int, content: str | Cell, numbers_from: int) -> str:
    cell = content if isinstance(content, Cell) else Cell(escape(content))
    if place == 0:
        return f'<th scope="row">{cell.html}</th>'
    classes = " ".join(name for name in ("number" if place >= numbers_from else "", cell.classes) if name)
    shade = "" if cell.shade is None else f' style="--shade:{100 * cell.shade:.0f}%"'
    attributes = f' class="{classes}"{shade}' if classes else shade
    return f"<td{attributes}>{cell.html}</td>"


def tiles(figures: Mapping[str, str]) -> str:
    """Large figures under small names."""
    entries = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in figures.items())
    return f'<dl class="counts">{"".join(entries)}</dl>'


def figure(title: str, *parts: str, wide: bool = False) -> str:
    """A chart under its title; `parts` are markup."""
    return f"<figure{' class=wide' if wide else ''}><h3>{escape(title)}</h3>{''.join(parts)}</figure>"


def columns(*figures: str, small: bool = False) -> str:
    """Figures beside one another, as many as there is room for; small ones stand three in a row."""
    return f'<div class="columns{" thirds" if small else ""}">{"".join(figures)}</div>'


def note(text: str) -> str:
    """A paragraph of plain text in a softer colour."""
    return f'<p class="soft">{escape(text)}</p>'


def metric_name(name: str) -> str:
    """A metric's title and its name in the files, as markup."""
    return f"{escape(METRIC_TITLES.get(name, name))} <code>{escape(name)}</code>"


def format_metric(value: float | None) -> str:
    """Four decimals; a dash where there is no number."""
    return "\N{EN DASH}" if value is None or value != value else f"{value:.4f}"  # noqa: PLR0124 - nan differs from itself


def format_seconds(seconds: float) -> str:
    """Seconds below two minutes, minutes below two hours, else hours."""
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"  # noqa: PLR2004 - two hours
