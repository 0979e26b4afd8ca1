"""What the doctor says about data: faults by their code, and what the sets hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeAlias

from training.data.layouts.outlines import Outlines

# Class name; xyxy in pixels of the picture, not clipped; whether the box is a crowd.
PictureBox: TypeAlias = tuple[str, tuple[float, float, float, float], bool]

# What the training readers repair, so that it is a warning: ids joined by name, pictures on both sides dropped from
# train, the foreign annotation file ignored, boxes clipped to their pictures, crowd, tiny and void boxes left out.
REPAIRED_CODES: Final = frozenset(
    {
        "category-ids-differ",
        "same-picture-in-two-splits",
        "same-name-in-two-splits",
        "foreign-annotation-file",
        "crowd-box",
        "box-outside-picture",
        "box-without-area",
        "annotation-without-outline",
        "box-from-outline",
        "repeated-annotation-id",
        "tiny-box",
    }
)


class Severity(StrEnum):
    """How much a finding matters; the order of the members is the order of the report."""

    ERROR = "error"  # breaks or falsifies training
    WARNING = "warning"  # may be meant so, or is repaired by the training readers
    INFO = "info"  # a figure to know


@dataclass(frozen=True, slots=True)
class Case:
    """One place where a fault is.

    Attributes:
        where: path relative to the examined root, with the annotation's id where there is one.
        detail: what came and what was wanted.
    """

    where: str
    detail: str


@dataclass(frozen=True, slots=True)
class Finding:
    """All places that have one fault.

    Attributes:
        code: kebab-case; what `--accept` and `--json` call it.
        severity: error, warning or info.
        title: one sentence for people.
        cases: at least one.
        repaired: the training readers repair it.
    """

    code: str
    severity: Severity
    title: str
    cases: tuple[Case, ...]
    repaired: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """One readable picture, with what is needed to draw it.

    Attributes:
        path: the picture's file.
        width, height: of the upright picture; in pixels.
        split: name of its split.
        boxes: its objects, for detection.
        mask: its palette mask, or outlines to draw one from, for segmentation.
        values: its class, by position in the set's names, of each of 256 mask values; -1 where it is none, 255 for
            void. None: as stored.
        label: its class name, for classification.
    """

    path: Path
    width: int
    height: int
    split: str
    boxes: tuple[PictureBox, ...] = ()
    mask: Path | Outlines | None = None
    label: str | None = None
    values: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """What one split holds.

    Attributes:
        name: such as train or val.
        pictures: how many can be read.
        class_counts: by class name: objects for detection, pixels for segmentation, pictures for classification.
        box_sides_px: sqrt of the area of each box; in pixels of its picture.
        picture_sizes: (width, height) of each picture; in pixels.
    """

    name: str
    pictures: int
    class_counts: Mapping[str, int]
    box_sides_px: tuple[float, ...]
    picture_sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class SetSummary:
    """One data set of one task.

    Attributes:
        name: its folder's name.
        task: "segmentation", "detection" or "classification".
        layout: such as "pictures and masks", in words.
        root: its folder.
        splits: what each split holds.
        pictures: every readable picture of all splits.
        mask_names: of the classes by mask value, for segmentation.
    """

    name: str
    task: str
    layout: str
    root: Path
    splits: tuple[SplitSummary, ...]
    pictures: tuple[Picture, ...]
    mask_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Examination:
    """All that the doctor found below one folder; findings by severity, then the most cases first."""

    root: Path
    sets: tuple[SetSummary, ...]
    findings: tuple[Finding, ...]

    @property
    def has_warnings(self) -> bool:
        """Whether any finding is a warning."""
        return any(finding.severity is Severity.WARNING for finding in self.findings)

    @property
    def has_errors(self) -> bool:
        """Whether any finding is an error; what the readers repair is none."""
        return any(finding.severity is Severity.ERROR for finding in self.findings)


def sort_findings(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Order by severity, then the most cases first, then code."""
    order = list(Severity)
    return tuple(sorted(findings, key=lambda each: (order.index(each.severity), -len(each.cases), each.code)))


def describe(finding: Finding, examples: int = 3) -> str:
    """Say one finding in lines of text: its code, count and title, then the first few cases."""
    repaired = ", repaired by the training readers" if finding.repaired else ""
    lines = [f"{finding.severity.value} {finding.code} ({len(finding.cases)}{repaired}): {finding.title}"]
    lines += [f"    {case.where}: {case.detail}" for case in finding.cases[:examples]]
    if len(finding.cases) > examples:
        lines.append(f"    and {len(finding.cases) - examples} more")
    return "\n".join(lines)
