"""Switch the faults of the student report on, one by one, on real data, and print what each does to a figure.

Run from the repository's root: `.venv/bin/python docs/tools/show_report_faults.py --data FOLDER`; docs/report.md shows
the result.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.engine.engine import Engine, load_engine
from service.errors import ContractError
from service.settings import Settings
from training.config import Task
from training.data.datasets import DataError, SegmentationSample, read_mask
from training.data.sources import read_data
from training.data.taxonomy import TaxonomyError
from training.inference import choose_tasks
from training.lab.report.student import STUDENT_REPORT
from training.metrics.evaluation import evaluate_task
from training.metrics.segmentation import ConfusionMatrix, miou_eps_per_image

LENIENT = "absent classes count 1, each picture by itself"
# Training again would take an hour, so these are figures of docs/experiments.md; a test compares.
CITED_ROWS = (
    ("EWC: lambda 10, not 0.1, 512 px (cited)", "top-1", "0.833", "0.583", Task.CLASSIFICATION),
    ("EWC: lambda 100, not 10, 256 px (cited)", "top-1", "0.567", "0.500", Task.CLASSIFICATION),
    ("EWC: lambda 100, not 10, 256 px (cited)", "mAP@0.5, own stage", "0.0091", "0.0019", Task.DETECTION),
)


class Row(NamedTuple):
    """One fault and one figure, as the table prints them."""

    fault: str
    figure: str
    without: str
    switched_on: str
    reported: str  # by the student: after the task's own stage → at the end


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table for the model file and the data that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of mini_voc_seg and mini_coco_det")
    parser.add_argument("--model", type=Path, default=Settings().model, help="ONNX file (default: the embedded model)")
    options = parser.parse_args(arguments)
    try:
        rows = switch_faults_on(load_engine(options.model), options.data)
    except (ContractError, DataError, TaxonomyError) as error:
        raise SystemExit(f"show_report_faults: {error}") from error
    sys.stdout.write(format_table(rows))


def switch_faults_on(engine: Engine, root: Path) -> list[Row]:
    """Measure the engine and a prediction of nothing with and without each fault, over the validation splits.

    Raises:
        DataError: the data cannot be used, or a class number of val means nothing in train.
        TaxonomyError: it has other classes than the model.
    """
    contract = engine.contract
    sets = read_data(root)
    if sets.detection is None or sets.segmentation is None:
        raise DataError(f"{root}: has {', '.join(sets.taxonomy.tasks)}; wanted segmentation and detection")
    found, masks = sets.detection.val, sets.segmentation.val
    choose_tasks(engine, (Task.DETECTION, Task.SEGMENTATION), sets, owner="the model")
    class_in_train = join_by_number(root / "mini_coco_det", contract.detection_classes)
    mislabelled = [
        dataclasses.replace(
            sample, labels=class_in_train[sample.labels], crowd_labels=class_in_train[sample.crowd_labels]
        )
        for sample in found
    ]
    by_name, by_number = (
        evaluate_task(engine, Task.DETECTION, samples, batch_size=1)["map_50"] for samples in (found, mislabelled)
    )
    metrics = evaluate_task(engine, Task.SEGMENTATION, masks, batch_size=1)
    honest, lenient = metrics["mean_iou"], metrics["miou_eps_per_image"]
    honest_nothing, lenient_nothing = measure_background(masks, len(contract.segmentation_classes))
    moved = np.count_nonzero(class_in_train != np.arange(len(class_in_train)))
    return [
        _row(f"classes joined by number ({moved} differ)", "mAP@0.5", _show(by_name), _show(by_number), Task.DETECTION),
        _row(LENIENT, "mIoU", _show(honest), _show(lenient), Task.SEGMENTATION),
        _row(LENIENT, "mIoU, nothing but background", _show(honest_nothing), _show(lenient_nothing), None),
        *(_row(*cited) for cited in CITED_ROWS),
    ]


def join_by_number(root: Path, names: Sequence[str]) -> NDArray[np.int64]:
    """Find what each class of val becomes when its number is looked up in train's table, which is the fault.

    Args:
        root: folder of `{train,val}/labels.json`, which the project's reader has accepted.
        names: all class names; the position is the label.

    Returns:
        [C] labels by the right label; a class that val does not name stays itself.

    Raises:
        DataError: a number of val means nothing in train.
    """
    name_in_train, name_in_val = _read_names(root / "train"), _read_names(root / "val")
    if strange := sorted(name_in_val.keys() - name_in_train.keys()):
        raise DataError(f"{root}: train has no classes with the numbers {strange} of val; they cannot be joined by it")
    labels = np.arange(len(names))
    for number, name in name_in_val.items():
        labels[names.index(name)] = names.index(name_in_train[number])
    return labels


def measure_background(samples: Sequence[SegmentationSample], num_classes: int) -> tuple[float, float]:
    """Mean IoU and `miou_eps_per_image` of class 0 everywhere; both 0..1."""
    confusion, lenient = ConfusionMatrix(num_classes), []
    for sample in samples:
        target = read_mask(sample.mask, num_classes, sample.values)
        nothing = np.zeros_like(target)
        confusion.update(nothing, target)
        lenient.append(miou_eps_per_image(nothing, target, num_classes))
    return confusion.compute().mean_iou, statistics.fmean(lenient)


def format_table(rows: Sequence[Row]) -> str:
    """Lay the rows out as Markdown."""
    header = ["| fault | figure | without it | with it | student report |", "|---|---|---|---|---|"]
    return "\n".join([*header, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _row(fault: str, figure: str, without: str, switched_on: str, task: Task | None) -> Row:
    reported = " → ".join(STUDENT_REPORT[task][:2]) if task else "not given"
    return Row(fault, figure, without, switched_on, reported)


def _show(value: float) -> str:
    return f"{value:.4f}"


def _read_names(folder: Path) -> dict[int, str]:
    categories = json.loads((folder / "labels.json").read_bytes())["categories"]
    return {category["id"]: category["name"] for category in categories}


if __name__ == "__main__":
    main()
