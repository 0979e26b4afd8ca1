"""Which classes a set has, how they are spread over its splits, and how crowded its grid cells are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.pictures.imaging import fit
from training.data.doctor.codes import Ledger
from training.data.doctor.contents import SplitContents
from training.data.doctor.findings import Picture

# A class in fewer pictures than this share of the most common one's is hardly seen in an epoch.
MIN_PICTURE_SHARE: Final = 1 / 20


def report_classes(
    contents: Mapping[str, SplitContents], pictures_by_class: Mapping[str, Counter[str]], ledger: Ledger
) -> None:
    """Compare the splits' classes by name and id, and train's examples with each other.

    Args:
        contents: of the set, by split name.
        pictures_by_class: by split name: how many pictures show each class.
        ledger: takes the cases.
    """
    if "train" not in contents:
        return
    source = contents["train"].source
    examples = pictures_by_class["train"]
    if "val" in contents:
        _compare_names(contents["train"], contents["val"], ledger)
    classes = {*examples, *(name for each in contents.values() for name in each.class_ids)}
    for counts in pictures_by_class.values():
        classes |= counts.keys()
    for name in sorted(classes):
        if not examples[name]:
            elsewhere = sum(counts[name] for counts in pictures_by_class.values())
            ledger.add(
                "class-without-training-example", source, f"pictures with {name}: none in train, {elsewhere} in val"
            )
    if not examples:
        return
    ((common, most),) = examples.most_common(1)
    for name, count in sorted(examples.items(), key=lambda item: (item[1], item[0])):
        if 0 < count < most * MIN_PICTURE_SHARE:
            ledger.add("class-imbalance", source, f"pictures with {name}: {count}, with {common}: {most}")


def report_cells(
    split: str,
    root: Path,
    pictures: Sequence[Picture],
    ledger: Ledger,
    *,
    input_size: int,
    strides: Sequence[int],
) -> None:
    """Write for each stride how many objects share a cell of the letterboxed input; crowds do not count.

    Args:
        split: its name.
        root: of the set.
        pictures: of the split.
        ledger: takes the cases.
        input_size: side of the network's square input; in pixels.
        strides: of its grids; in input pixels.
    """
    owners, centres = [], []
    for index, picture in enumerate(pictures):
        scale = np.float64(fit(picture.width, picture.height, input_size).resized_width / picture.width)
        for _, (x1, y1, x2, y2), is_crowd in picture.boxes:
            if not is_crowd:
                owners.append(index)
                centres.append(((x1 + x2) / 2 * scale, (y1 + y2) / 2 * scale))
    if not owners:
        return
    for stride in strides:
        per_cell = objects_per_cell(np.array(owners), np.array(centres), stride)
        lost = 1 - len(per_cell) / len(owners)
        cells = input_size // stride
        ledger.add(
            "objects-share-cell",
            root,
            f"{split} at {input_size} px, stride {stride} ({cells} x {cells} cells): "
            f"{len(owners)} objects in {len(per_cell)} cells, "
            f"{per_cell.mean():.2f} a cell, at most {per_cell.max()}; {lost:.1%} lost",
        )


def objects_per_cell(owners: NDArray[np.int64], centres: NDArray[np.float64], stride_px: float) -> NDArray[np.int64]:
    """Count the objects in each cell that has any.

    Args:
        owners: [K] index of the picture that each object is in.
        centres: [K, 2] x, y of the objects' centres; in input pixels.
        stride_px: side of a cell; in input pixels.

    Returns:
        [cells] how many objects each occupied cell has, >= 1; all but one of them are lost to it.
    """
    cells = np.column_stack([owners, np.floor(centres / stride_px).astype(np.int64)])
    return np.unique(cells, axis=0, return_counts=True)[1]


def _compare_names(train: SplitContents, val: SplitContents, ledger: Ledger) -> None:
    if not train.class_ids or not val.class_ids:
        return
    shared = sorted(train.class_ids.keys() & val.class_ids.keys())
    has_own_ids = not train.source.is_dir()
    differing = [name for name in shared if has_own_ids and train.class_ids[name] != val.class_ids[name]]
    for name in differing:
        counts = f"{len(differing)} of {len(shared)} shared names differ"
        sizes = f"{len(train.class_ids)} categories in train, {len(val.class_ids)} in val"
        sentence = f"{name} is {val.class_ids[name]} here and {train.class_ids[name]} in train ({counts}; {sizes})"
        ledger.add("category-ids-differ", val.source, sentence)
    for lacking, having in ((val, train), (train, val)):
        for name in sorted(having.class_ids.keys() - lacking.class_ids.keys()):
            ledger.add("missing-class-name", lacking.source, f"lacks {name}, which {ledger.place(having.source)} has")
