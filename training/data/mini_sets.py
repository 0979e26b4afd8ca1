"""The three mini sets in the folders that they lie in, any of which may be missing."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from training.data.datasets import DataError, DataSets, read_classification, read_detection, read_segmentation
from training.data.taxonomy import MINI
from training.options.base import Task

# Below the folder that a run is given.
FOLDERS: Final = {
    Task.SEGMENTATION: "mini_voc_seg",
    Task.DETECTION: "mini_coco_det",
    Task.CLASSIFICATION: "imagenette_160",
}


def read_mini_sets(root: Path) -> DataSets:
    """Read `<root>/{mini_voc_seg,mini_coco_det,imagenette_160}`, those that are there.

    Raises:
        DataError: none is there, or see the three readers.
    """
    there = {task: root / name for task, name in FOLDERS.items() if (root / name).is_dir()}
    if not there:
        raise DataError(f"{root}: has none of the folders {', '.join(FOLDERS.values())}")
    return DataSets(
        taxonomy=MINI.keep(there),
        segmentation=read_segmentation(there[Task.SEGMENTATION]) if Task.SEGMENTATION in there else None,
        detection=read_detection(there[Task.DETECTION]) if Task.DETECTION in there else None,
        classification=read_classification(there[Task.CLASSIFICATION]) if Task.CLASSIFICATION in there else None,
    )
