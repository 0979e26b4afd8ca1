"""One data set on the doctor's page: its splits in numbers, its samples, its sizes and its classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import TypeAlias

from training.data.doctor.findings import Finding, SetSummary, SplitSummary
from training.data.doctor.html import charts
from training.data.doctor.html.contact_sheet import Sample, colours_of_set, make_samples
from training.data.doctor.html.drawing import UNKNOWN_COLOUR, Colour, colour_key, encode_data_uri

FindingsOfPicture: TypeAlias = Mapping[Path, Sequence[Finding]]  # by the picture's path

_TIMES = "\N{MULTIPLICATION SIGN}"
_CLASSES_IN_CAPTION = 6
_UNITS = {"segmentation": "object pixels", "detection": "boxes", "classification": "pictures"}
_DRAWN = {"segmentation": "classes tinted, void in white", "detection": "boxes drawn, crowds dashed"}


def set_section(index: int, summary: SetSummary, findings: FindingsOfPicture) -> str:
    """Write the part of the page that shows one set.

    Args:
        index: of the set; makes the anchor `set-<index>`.
        summary: the set.
        findings: what concerns a picture, by its path.
    """
    unit = _UNITS.get(summary.task, "examples")
    colours = colours_of_set(summary)
    samples = make_samples(summary, {path: [each.code for each in concerning] for path, concerning in findings.items()})
    sheet = "".join(_sheet_entry(each, summary.task, colours, findings) for each in samples)
    figures = "".join(
        f"<figure><h3>{title}</h3>{charts.legend(summary.splits)}{chart}</figure>"
        for title, chart in _size_charts(summary)
    )
    names = {name for split in summary.splits for name in split.class_counts}
    wide = ' class="wide"' if len(names) > charts.ONE_COLUMN else ""
    drawn = _DRAWN.get(summary.task)
    return f"""<section aria-labelledby="set-{index}">
<h2 id="set-{index}">{escape(summary.name)}</h2>
<p class="soft">{escape(summary.task.capitalize())} · {escape(summary.layout)}</p>
{_splits_table(summary, unit)}
<h3>Samples{f": {drawn}" if drawn else ""}</h3>
<ul class="sheet">{sheet}</ul>
<div class="columns">{figures}<figure{' class="wide"' if wide else ""}><h3>Classes, by their share of each split</h3>
{charts.legend(summary.splits)}{charts.class_bars(summary.splits, unit)}</figure></div>
</section>
"""


def _size_charts(summary: SetSummary) -> Iterator[tuple[str, str]]:
    if any(split.box_sides_px for split in summary.splits):
        yield "Box sizes", charts.box_sides(summary.splits)
    yield "Picture sizes", charts.picture_sizes(summary.splits)


def _splits_table(summary: SetSummary, unit: str) -> str:
    has_boxes = unit == "boxes"
    rows = "".join(_split_row(split, has_boxes) for split in summary.splits)
    boxes = '<th scope="col" class="number">Boxes</th><th scope="col" class="number">Boxes per picture</th>'
    return (
        '<div class="scroll"><table><thead><tr><th scope="col">Split</th><th scope="col" class="number">Pictures</th>'
        f'{boxes if has_boxes else ""}<th scope="col" class="number">Classes</th>'
        f'<th scope="col" class="number">Median width {_TIMES} height</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _split_row(split: SplitSummary, has_boxes: bool) -> str:
    boxes = sum(split.class_counts.values())
    cells = [f"{split.pictures:,}"]
    if has_boxes:
        cells += [f"{boxes:,}", f"{boxes / max(1, split.pictures):.1f}"]
    cells.append(str(sum(1 for count in split.class_counts.values() if count)))
    sizes = split.picture_sizes
    cells.append(f"{median(s[0] for s in sizes):.0f} {_TIMES} {median(s[1] for s in sizes):.0f} px" if sizes else "-")
    columns = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return f'<tr><th scope="row">{escape(split.name)}</th>{columns}</tr>'


def _sheet_entry(sample: Sample, task: str, colours: Mapping[str, Colour], findings: FindingsOfPicture) -> str:
    words = {name: _class_words(sample, task, name, number) for name, number in sample.classes[:_CLASSES_IN_CAPTION]}
    hidden = len(sample.classes) - len(words)
    chips = "".join(
        f"<li>{colour_key(colours.get(name, UNKNOWN_COLOUR)) if task in _DRAWN else ''}{escape(text)}</li>"
        for name, text in words.items()
    )
    chips += f"<li>and {hidden} more</li>" if hidden else ""
    chips = f'<ul class="chips">{chips or "<li>no objects</li>"}</ul>' if words or not sample.note else ""
    name = sample.picture.path.name
    spoken = f"{name} of {sample.picture.split}: {', '.join(words.values()) or 'no objects'}"
    codes = "".join(
        f'<span class="badge {each.severity.value}">{escape(each.code)}</span>'
        for each in findings.get(sample.picture.path, ())
    )
    codes += f'<span class="badge error">{escape(sample.note)}</span>' if sample.note else ""
    if sample.pixels is None:
        frame = "<p>No picture to show</p>"
    else:
        frame = f'<img alt="{escape(spoken, quote=True)}" loading="lazy" src="{encode_data_uri(sample.pixels)}">'
    return (
        f'<li><figure><div class="frame">{frame}</div><figcaption><span class="where">{escape(sample.picture.split)} / '
        f"{escape(name)}</span>{chips}{codes}</figcaption></figure></li>\n"
    )


def _class_words(sample: Sample, task: str, name: str, number: int) -> str:
    if task == "segmentation":
        share = number / max(1, sample.picture.width * sample.picture.height)
        return f"{name} {share:.0%}" if share >= 0.01 else f"{name} < 1%"  # noqa: PLR2004 - one per cent
    return f"{name} {_TIMES} {number}" if number > 1 else name
