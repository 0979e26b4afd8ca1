"""What is wrong with a COCO detection file, row by row: all of it, where the training reader stops at the first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.doctor.boxes import AnnotatedBox, report_boxes
from training.data.doctor.codes import Ledger
from training.data.doctor.findings import PictureBox
from training.data.layouts.coco_rows import CocoRows, Id, load_document, read_rows
from training.data.layouts.faults import Faults


class LedgerFaults(Faults):
    """Writes every fault that a reader meets into the ledger, and lets it go on."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger

    def refuse(self, code: str, path: Path, sentence: str, *, entry: object = None) -> None:
        """Write a case."""
        self._ledger.add(code, path, sentence, entry=entry)

    mend = refuse
    note = refuse


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """The sound rows of one COCO file.

    Attributes:
        category_ids: id by class name, the first of each name.
        boxes: by the image's id: its well-formed boxes, crowds too.
    """

    category_ids: Mapping[str, Id]
    boxes: Mapping[Id, Sequence[PictureBox]]


def examine_annotations(path: Path, ledger: Ledger) -> AnnotationFile | None:
    """Read the sound rows of a COCO file and write a case for each other row, and for each faulty box.

    Returns:
        The sound rows; None if the file is no COCO JSON at all.
    """
    try:
        document = load_document(path)
    except ValueError as error:
        ledger.add("unreadable-annotation-file", path, str(error))
        return None
    rows = read_rows(path, document, LedgerFaults(ledger))
    return AnnotationFile(
        # Reversed, so that of two categories with one name the first one's id stays.
        {name: category_id for category_id, name in reversed(list(rows.categories.items()))},
        examine_boxes(path, rows, {number: row.size for number, row in rows.images.items()}, ledger),
    )


def examine_boxes(
    path: Path, rows: CocoRows, sizes: Mapping[Id, tuple[int, int] | None], ledger: Ledger
) -> Mapping[Id, Sequence[PictureBox]]:
    """Write a case for each faulty box.

    Args:
        path: of the file.
        rows: its sound rows.
        sizes: (width, height) of its pictures, where they are known.
        ledger: takes the cases.

    Returns:
        The boxes by the image's id, as the file means them.
    """
    boxes: dict[Id, list[PictureBox]] = defaultdict(list)
    examined = []
    for row in rows.annotations:
        if (size := sizes.get(row.image)) is not None:
            box = AnnotatedBox(row.entry, rows.categories[row.category], row.xywh, *size, row.crowd)
            examined.append(box)
            boxes[row.image].append(box.as_picture_box())
    report_boxes(path, examined, ledger)
    return boxes
