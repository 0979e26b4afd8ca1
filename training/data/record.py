"""What a run learned from: its sets in numbers, the faults that the doctor found, and a fingerprint; kept as JSON."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from training.data.datasets import ClassificationSample, DataSets, DetectionSample, SegmentationSample
from training.data.doctor.findings import Examination
from training.files import write_whole
from training.options.base import Frozen, Task

DATA_NAME = "data.json"


class RecordError(ValueError):
    """The file is none, or of another version."""


class SplitRecord(Frozen):
    """One split, as it lies on disk; what `class_counts` count is objects, pixels or pictures, as the task has them."""

    pictures: int
    class_counts: dict[str, int]


class FaultRecord(Frozen):
    """One kind of fault, without the names of the files that have it."""

    code: str
    severity: str
    title: str
    cases: int
    repaired: bool


class DataRecord(Frozen):
    """The data of a run.

    Attributes:
        fingerprint: SHA-256 of all pictures and labels that the readers give, in their order; 64 hex digits.
        splits: by task, then by the split's name.
        faults: the worst first.
    """

    fingerprint: str
    splits: dict[Task, dict[str, SplitRecord]]
    faults: tuple[FaultRecord, ...]


def record_data(examination: Examination, sets: DataSets) -> DataRecord:
    """Describe the data of a run.

    Args:
        examination: of the sources that the sets are read from.
        sets: as read from it.
    """
    splits: dict[Task, dict[str, SplitRecord]] = {}
    for summary in examination.sets:  # a task may have several sources
        for split in summary.splits:
            found = splits.setdefault(Task(summary.task), {})
            before = found.get(split.name, SplitRecord(pictures=0, class_counts={}))
            counts = Counter(before.class_counts) + Counter(split.class_counts)
            found[split.name] = SplitRecord(pictures=before.pictures + split.pictures, class_counts=dict(counts))
    return DataRecord(
        fingerprint=compute_fingerprint(sets),
        splits={task: splits[task] for task in Task if task in splits},
        faults=tuple(
            FaultRecord(
                code=finding.code,
                severity=finding.severity.value,
                title=finding.title,
                cases=len(finding.cases),
                repaired=finding.repaired,
            )
            for finding in examination.findings
        ),
    )


def compute_fingerprint(sets: DataSets) -> str:
    """Hash every picture and label that training and measuring see, in their order; where they lie does not count."""
    digest = hashlib.sha256()
    for part in map(sets.split, sets.taxonomy.tasks):
        for split in (part.train, part.val, *([part.choose] if part.choose else [])):
            digest.update(f"{len(split)} pictures\n".encode())
            for sample in split:
                digest.update(hashlib.sha256(sample.image.read_bytes()).digest())
                for values in _labels_of(sample):
                    digest.update(hashlib.sha256(values).digest())
    return digest.hexdigest()


def _labels_of(sample: SegmentationSample | DetectionSample | ClassificationSample) -> Iterator[bytes]:
    if isinstance(sample, SegmentationSample):
        yield sample.mask.read_bytes()
        if sample.values is not None:
            yield repr(sample.values).encode()
    elif isinstance(sample, DetectionSample):
        for array in (sample.boxes, sample.labels, sample.crowd_boxes, sample.crowd_labels):
            yield array.tobytes()
        for more in (sample.scores, sample.ignored, sample.ignored_labels, sample.known):
            if more is not None and len(more):
                yield np.asarray(more).tobytes()
    else:
        yield str(sample.label).encode()


def write_record(out: Path, record: DataRecord) -> None:
    """Write the record into a run's folder."""
    write_whole(out / DATA_NAME, record.model_dump_json(indent=1) + "\n")


def read_record(out: Path) -> DataRecord | None:
    """Read the record of a run; None where it left none.

    Raises:
        RecordError: the file is not one that this version wrote.
    """
    path = out / DATA_NAME
    if not path.exists():
        return None
    try:
        return DataRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RecordError(f"{path} is not a record of data that this version wrote: {error}") from error
