"""Every fault the doctor knows, by its code, and the ledger in which the checks write what they meet."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from training.data.doctor.findings import REPAIRED_CODES, Case, Finding, Severity, sort_findings

_ERRORS: Final = {
    "missing-split": "A split is missing; training needs train, and val or choose.",
    "empty-split": "A split holds no picture.",
    "unreadable-annotation-file": "An annotation file cannot be read.",
    "corrupt-category": "A category entry has no usable id or name.",
    "corrupt-image-entry": "An image entry lacks its id, file name, width or height.",
    "corrupt-annotation": "An annotation lacks a field or has it in another shape.",
    "duplicate-id": "Two entries of one file have the same id.",
    "unknown-class-name": "A class name is none of those that the data is to have.",
    "duplicate-class-name": "A class name occurs twice.",
    "unknown-image-id": "An annotation refers to a picture that the file does not list.",
    "unknown-category-id": "An annotation refers to a category that the file does not list.",
    "listed-picture-missing": "An annotation file names a picture that is not there.",
    "picture-size-differs": "A picture has another size than its annotation file says.",
    "unreadable-picture": "A picture or mask cannot be decoded.",
    "truncated-picture": "A picture or mask is cut short.",
    "missing-mask": "A picture has no mask.",
    "mask-without-picture": "A mask has no picture.",
    "mask-not-palette": "A mask stores colours in place of class ids.",
    "mask-size-differs": "A mask has another size than its picture.",
    "mask-value-unknown": "A mask holds values that are no class.",
    "masks-without-class": "No mask of a split shows a class: all of it is background or void.",
    "same-picture-in-two-tasks": "The same file is in the sets of two tasks.",
    "normalised-box": "A box is given in shares of the picture; pixels are wanted.",
    "xywh-taken-for-xyxy": "Boxes fit their pictures only in the other convention: corners and sizes were confused.",
}
_WARNINGS: Final = {
    "foreign-annotation-file": "An annotation file beside the splits belongs to other pictures.",
    "category-ids-differ": "The same class has another id in each split; joining by id would mislabel it.",
    "same-picture-in-two-splits": "The same file is in two splits: what is measured was learned by heart.",
    "box-outside-picture": "A box reaches more than a pixel beyond its picture.",
    "box-without-area": "A box is inverted or has no area.",
    "tiny-box": "A box is under 2 px wide or high.",
    "crowd-box": "A box stands for a crowd that nobody counted.",
    "empty-class-folder": "A class folder holds no picture.",
    "repeated-annotation-id": "Several annotations of one file have the same id.",
    "box-from-outline": "An annotation has no usable bbox; the box around its outline is taken.",
    "annotation-without-outline": "An annotation has no outline to draw a mask from; its box is void.",
    "missing-class-name": "A class is named in one split and not in the other.",
    "class-without-training-example": "A class has no example in train.",
    "class-imbalance": "A class is in less than a twentieth of the pictures that the most common class has.",
    "same-name-in-two-splits": "Two different pictures of train and val have the same name.",
    "picture-listed-twice": "Two image entries of one file name the same picture.",
    "near-duplicate": "Two pictures of different splits or tasks look the same.",
    "cmyk-picture": "A picture is in CMYK; its colours are converted without a profile.",
    "16-bit-picture": "A picture has 16 bits a channel; the lower eight are lost.",
    "exif-rotated-picture": "A picture is turned by its EXIF tag; boxes and masks must be drawn on the turned one.",
}
_INFOS: Final = {
    "unlisted-picture": "A picture is in the folder but not in its annotation file, and is no part of the set.",
    "objects-share-cell": "Objects whose centres share a grid cell at 512 px: one cell can learn one of them.",
}
CODES: Final = {
    **{code: (Severity.ERROR, title) for code, title in _ERRORS.items()},
    **{code: (Severity.WARNING, title) for code, title in _WARNINGS.items()},
    **{code: (Severity.INFO, title) for code, title in _INFOS.items()},
}


class Ledger:
    """Collects cases by code; the checks write, the examination reads once at the end.

    Attributes:
        root: the examined folder; cases name their place from there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._cases: dict[str, list[Case]] = {}

    def add(self, code: str, path: Path, detail: str, *, entry: object = None) -> None:
        """Write one case.

        Args:
            code: a key of `CODES`.
            path: the file or folder at fault.
            detail: what came and what was wanted.
            entry: the row at fault, where there is one: "annotation 7", "line 3".
        """
        where = self.place(path)
        if entry is not None:
            where = f"{where} {entry}"
        self._cases.setdefault(code, []).append(Case(where, detail))

    def place(self, path: Path) -> str:
        """Name a path from the examined folder."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def findings(self) -> tuple[Finding, ...]:
        """Everything written so far, in the order of the report."""
        return sort_findings(
            [
                Finding(code, *CODES[code], cases=tuple(cases), repaired=code in REPAIRED_CODES)
                for code, cases in self._cases.items()
            ]
        )
