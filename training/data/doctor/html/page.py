"""The doctor's report as one HTML file that needs nothing else: no network, no script, no files beside it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Final

from training.data.doctor.boxes import TOLERANCE_PX
from training.data.doctor.findings import Case, Examination, Finding, Picture, Severity, sort_findings
from training.data.doctor.html import svg
from training.data.doctor.html.sections import FindingsOfPicture, set_section
from training.data.layouts.readings import MIN_SIDE_PX
from training.files import write_whole

LISTED_CASES: Final = 200
_EXAMPLES = 3


def write_page(examination: Examination, out: Path) -> None:
    """Write the report beside the target, then rename: a kill leaves the old page or the new one, whole.

    Args:
        examination: what the doctor found.
        out: the HTML file; its folder has to exist.

    Raises:
        OSError: the file cannot be written.
    """
    page = make_page(examination).encode("utf-8", "backslashreplace")  # names of files need not be Unicode
    write_whole(out, page.decode("utf-8"))


def make_page(examination: Examination) -> str:
    """Build the page; the same examination gives the same text."""
    style = resources.files("training.data.doctor.html").joinpath("page.css").read_text(encoding="utf-8")
    findings = _findings_of_picture(examination)
    sections = "".join(set_section(index, summary, findings) for index, summary in enumerate(examination.sets))
    links = "".join(
        f'<a href="#set-{index}">{escape(summary.name)}</a>' for index, summary in enumerate(examination.sets)
    )
    body = f"""{_verdict(examination)}
<nav aria-label="Parts of this page"><a href="#findings">Findings</a>{links}</nav>
<h2 id="findings">Findings</h2>
{_findings_table(examination.findings)}
{sections}
"""
    footer = "Written by <code>unihead-data doctor --html</code>; <code>--json</code> lists every case."
    title = f"Data doctor: {examination.root.name}"
    return svg.page(title, style, str(examination.root), body, footer, heading="Data doctor")


def _findings_of_picture(examination: Examination) -> FindingsOfPicture:
    """Gather the findings that concern a picture: their cases name it or its mask, or one of its boxes shows it."""
    pictures = [picture for summary in examination.sets for picture in summary.pictures]
    paths = {os.path.relpath(picture.path, examination.root): picture.path for picture in pictures}
    masks = ((each.mask, each.path) for each in pictures)
    paths |= {os.path.relpath(mask, examination.root): path for mask, path in masks if isinstance(mask, Path)}
    codes = {picture.path: _codes_of_boxes(picture) for picture in pictures}
    for finding in examination.findings:
        for case in finding.cases:
            for word in (case.where, *re.split(r"[\s:;,#()'\"]+", f"{case.where} {case.detail}")):
                if word in paths:
                    codes[paths[word]].add(finding.code)
    return {path: [each for each in examination.findings if each.code in codes[path]] for path in codes if codes[path]}


def _codes_of_boxes(picture: Picture) -> set[str]:
    """Faults of boxes by the codes of their findings, whose cases name annotations and not pictures."""
    codes = set()
    for _, (x1, y1, x2, y2), is_crowd in picture.boxes:
        if is_crowd:
            codes.add("crowd-box")
        if min(x2 - x1, y2 - y1) < MIN_SIDE_PX:
            codes.add("tiny-box" if x2 > x1 and y2 > y1 else "box-without-area")
        if min(x1, y1) < -TOLERANCE_PX or x2 > picture.width + TOLERANCE_PX or y2 > picture.height + TOLERANCE_PX:
            codes.add("box-outside-picture")
    return codes


def _verdict(examination: Examination) -> str:
    kinds = Counter(finding.severity for finding in examination.findings)
    repaired = sum(finding.repaired for finding in examination.findings)
    if kinds[Severity.ERROR]:
        tone, head = "error", f"{_count(kinds[Severity.ERROR], 'error')} would stop or falsify training."
        text = (
            f"{repaired} more {'is' if repaired == 1 else 'are'} repaired as training reads the data."
            if repaired
            else ""
        )
    elif repaired:
        tone, head = "warning", "The data has faults, and training repairs them as it reads."
        text = "Any other reader of these files meets them unrepaired."
    elif kinds[Severity.WARNING]:
        tone, head, text = "warning", "No errors; the warnings are worth a look.", ""
    else:
        tone, head, text = "good", "No faults found.", ""
    pictures = sum(len(summary.pictures) for summary in examination.sets)
    figures = {
        "Errors": kinds[Severity.ERROR],
        "Warnings": kinds[Severity.WARNING],
        "Notes": kinds[Severity.INFO],
        "Data sets": len(examination.sets),
        "Pictures": pictures,
    }
    tiles = "".join(f"<div><dt>{name}</dt><dd>{value:,}</dd></div>" for name, value in figures.items())
    text = f"<p>{text}</p>" if text else ""
    return f'<div class="verdict {tone}"><strong>{head}</strong>{text}</div>\n<dl class="counts">{tiles}</dl>'


def _findings_table(findings: Sequence[Finding]) -> str:
    if not findings:
        return "<p>None: every check passed.</p>"
    rows = "".join(map(_finding_row, sort_findings(findings)))
    return (
        # On a phone the rows become blocks, and blocks keep no table roles of their own.
        '<table class="findings" role="table"><thead><tr role="row"><th scope="col" role="columnheader">Finding</th>'
        '<th scope="col" role="columnheader" class="number">Cases</th>'
        f'<th scope="col" role="columnheader">Examples</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _finding_row(finding: Finding) -> str:
    severity = finding.severity.value
    badges = f'<span class="badge {severity}">{severity}</span>'
    if finding.repaired:
        badges += ' <span class="badge good">repaired when training</span>'
    number = len(finding.cases)
    examples = f'<ul class="cases">{"".join(map(_case, finding.cases[:_EXAMPLES]))}</ul>'
    if number > _EXAMPLES:
        more = f"<li>and {number - LISTED_CASES:,} more; see --json</li>" if number > LISTED_CASES else ""
        listed = "".join(map(_case, finding.cases[:LISTED_CASES]))
        which = "all" if number <= LISTED_CASES else f"the first {LISTED_CASES} of"
        examples += (
            f'<details><summary>Show {which} {number:,}</summary><ul class="cases">{listed}{more}</ul></details>'
        )
    one = " one" if number == 1 else ""
    return (
        f'<tr role="row"><th scope="row" role="rowheader">{badges}<span class="title">{escape(finding.title)}</span>'
        f"<code>{escape(finding.code)}</code></th>"
        f'<td role="cell" class="number count{one}">{number:,}</td><td role="cell">{examples}</td></tr>\n'
    )


def _case(case: Case) -> str:
    return f'<li><span class="where">{escape(case.where)}</span>{escape(case.detail)}</li>'


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
