"""An examination as text for people and as one JSON document for programs."""

from __future__ import annotations

import json
from collections import Counter

from training.data.doctor.findings import Examination, Severity, describe

_UNITS = {"segmentation": "pixels", "detection": "objects"}


def format_text(examination: Examination) -> str:
    """What was examined, then every finding by severity with its count and three named examples."""
    lines = [f"examined {examination.root}"]
    for each in examination.sets:
        lines.append(f"  {each.name}: {each.task}, {each.layout}")
        for split in each.splits:
            amount = f", {sum(split.class_counts.values())} {_UNITS[each.task]}" if each.task in _UNITS else ""
            lines.append(f"    {split.name}: {split.pictures} pictures{amount} of {len(split.class_counts)} classes")
    lines += ["", *(describe(finding) for finding in examination.findings)]
    return "\n".join([*lines, "", _count_kinds(examination)])


def _count_kinds(examination: Examination) -> str:
    by_severity = Counter(finding.severity for finding in examination.findings)
    repaired = sum(finding.repaired for finding in examination.findings)
    totals = {
        "error": by_severity[Severity.ERROR],
        "warning": by_severity[Severity.WARNING],
        "note": by_severity[Severity.INFO],
    }
    kinds = [f"{count} {word}{'' if count == 1 else 's'}" for word, count in totals.items()]
    kinds[1] += f" ({repaired} repaired by the training readers)" if repaired else ""
    return f"kinds of findings: {', '.join(kinds)}"


def format_json(examination: Examination) -> str:
    """Every case with its code, and what each split holds."""
    document = {
        "root": str(examination.root),
        "has_errors": examination.has_errors,
        "has_warnings": examination.has_warnings,
        "sets": [
            {
                "name": each.name,
                "task": each.task,
                "layout": each.layout,
                "splits": {
                    split.name: {"pictures": split.pictures, "class_counts": split.class_counts}
                    for split in each.splits
                },
            }
            for each in examination.sets
        ],
        "findings": [
            {
                "code": finding.code,
                "severity": finding.severity.value,
                "title": finding.title,
                "repaired": finding.repaired,
                "count": len(finding.cases),
                "cases": [{"where": case.where, "detail": case.detail} for case in finding.cases],
            }
            for finding in examination.findings
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)
