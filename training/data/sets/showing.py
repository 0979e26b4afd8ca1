"""What was understood of data, as a table for people, and the data file that says the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from training.data.datasets import ClassificationSample, DataSets, DetectionSample, SegmentationSample, read_mask
from training.data.layouts.faults import DataError
from training.data.layouts.files import relative
from training.data.sets.data_file import DataFile, format_data_file
from training.data.sets.opening import Opened
from training.options.base import Task

# Masks are counted on so many at most of each split, spread evenly.
_MOST_MASKS: Final = 200
_MOST_CLASSES: Final = 100
_SPLITS: Final = ("train", "val", "choose", "test")
_WHAT: Final = {Task.SEGMENTATION: "pictures", Task.DETECTION: "objects", Task.CLASSIFICATION: "pictures"}


@dataclass(frozen=True, slots=True)
class Understood:
    """What was made of a data file or folder, as far as it can be made out.

    Attributes:
        path: as it was given.
        data: the sources, as a data file would have them.
        opened: those that could be read.
        sets: the samples; None if they cannot be had.
        problems: why not, a sentence each.
        told: what was mended or should be known, a line each.
    """

    path: Path
    data: DataFile | None
    opened: tuple[Opened, ...]
    sets: DataSets | None
    problems: tuple[str, ...]
    told: tuple[str, ...]


def format_understood(understood: Understood) -> str:
    """Sources and splits, classes and counts, what was mended, what is wrong, and the data file."""
    lines = [f"data: {understood.path}", ""]
    if understood.opened:
        root = understood.path if understood.path.is_dir() else understood.path.parent
        header = ("source", "task", "layout", "split", "pictures", "classes", "weight", "names")
        rows = [row for opened in understood.opened for row in _describe_source(opened, root)]
        lines += [*_table([header, *rows], right={4, 5, 6}), ""]
    if understood.sets is not None:
        for task in understood.sets.taxonomy.tasks:
            lines += [*_describe_classes(understood.sets, task), ""]
        pairs = [pair for pair in understood.sets.taxonomy.same if pair[0] != pair[1]]
        if pairs:
            lines += ["same thing under two names: " + ", ".join(f"{one} = {other}" for one, other in pairs), ""]
    for title, sentences in (("noticed:", understood.told), ("cannot be used:", understood.problems)):
        if sentences:
            lines += [title, *(f"  {sentence}" for sentence in sentences), ""]
    if understood.data is not None:
        lines += ["as a data file (save it as data.toml beside the folders, change it, and give it as DATA):", ""]
        lines.append(format_data_file(understood.data))
    return "\n".join(lines).rstrip()


def _describe_source(opened: Opened, root: Path) -> Iterator[tuple[str, ...]]:
    names = ", ".join(opened.names)
    names = names if len(names) <= 60 else f"{names[:57]}..."  # noqa: PLR2004 - what a terminal has room for
    first = (relative(opened.place, root), opened.source.task.value, opened.found.layout.words)
    for split in _SPLITS:
        if (reading := opened.readings.get(split)) is not None:
            used = "test (not used)" if split == "test" else split
            yield (
                *first,
                used,
                str(len(reading.pictures)),
                str(len({name for name in reading.names if name is not None})),
                f"{opened.source.weight:g}",
                names,
            )
            first, names = ("", "", ""), ""


def _describe_classes(sets: DataSets, task: Task) -> list[str]:
    """A row a class: how many objects, or pictures that show it, each split has."""
    split = sets.split(task)
    parts = {"train": split.train, "val": split.val, "choose": split.choose}
    parts = {name: samples for name, samples in parts.items() if samples or name != "choose"}
    counted = {name: _count(samples, len(sets.taxonomy.names(task))) for name, samples in parts.items()}
    count = len(sets.taxonomy.names(task))
    title = f"{task}: {count} {'class' if count == 1 else 'classes'}, {_WHAT[task]} of each"
    if task is Task.SEGMENTATION and any(len(samples) > _MOST_MASKS for samples in parts.values()):
        title += f" among {_MOST_MASKS} masks a split"
    rows = [
        (str(label), name, *(str(counts[label]) for counts in counted.values()))
        for label, name in enumerate(sets.taxonomy.names(task))
    ]
    if len(rows) > _MOST_CLASSES:
        more = f"and {len(rows) - _MOST_CLASSES} more"
        rows = [*rows[:_MOST_CLASSES], ("", more, *("" for _ in parts))]
    table = _table([("label", "class", *parts), *rows], right={0, *range(2, 2 + len(parts))})
    ignored = sum(len(sample.ignored) for sample in split.train if isinstance(sample, DetectionSample))
    crowds = sum(len(sample.crowd_boxes) for sample in split.train if isinstance(sample, DetectionSample))
    totals = f"{len(split.train)} pictures for train, {len(split.val)} for val" + (
        f", {len(split.choose)} for choose" if split.choose else ""
    )
    if ignored or crowds:
        totals += f"; in train {crowds} crowds and {ignored} boxes that are neither object nor background"
    return [title, *table, totals]


def _count(
    samples: Sequence[SegmentationSample | DetectionSample | ClassificationSample], num_classes: int
) -> Counter[int]:
    counts: Counter[int] = Counter()
    masks = [sample for sample in samples if isinstance(sample, SegmentationSample)]
    step = max(1, -(-len(masks) // _MOST_MASKS))
    for mask in masks[::step]:
        try:
            counts.update(np.unique(read_mask(mask.mask, num_classes, mask.values)).tolist())
        except DataError:
            continue  # the doctor names it
    for sample in samples:
        if isinstance(sample, DetectionSample):
            counts.update(sample.labels.tolist())
        elif isinstance(sample, ClassificationSample):
            counts[sample.label] += 1
    return counts


def _table(rows: Sequence[tuple[str, ...]], right: set[int]) -> list[str]:
    """Rows in columns, with a line under the first; numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row: tuple[str, ...]) -> str:
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return [line(rows[0]), "  ".join("-" * width for width in widths), *(line(row) for row in rows[1:])]
