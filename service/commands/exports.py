"""The files for other tools that are made of all results when a run is over: tables, COCO, YOLO."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from service.commands.coco import CocoIds, write_dataset, write_results
from service.commands.local import WRONG_USAGE, RunEnded
from service.commands.results import import_pyarrow, read_records, write_csv, write_parquet
from service.commands.yolo import plan_labels, write_labels
from service.engine.contract import ModelTask


def wants_exports(options: argparse.Namespace) -> bool:
    """Whether there is any such file to write."""
    return any(one is not None for one in (options.csv, options.parquet, options.coco, options.yolo))


def plan_exports(
    options: argparse.Namespace, names: Iterable[str], classes: Mapping[ModelTask, tuple[str, ...]]
) -> Callable[[Path], list[str]]:
    """Find, before the work begins, what would stop the files from being written.

    Args:
        options: of the command.
        names: of all pictures of the run, and of those that it goes on with.
        classes: names by class id, of each task that the model serves.

    Returns:
        What writes them, given the file of results, and returns what there is to tell about that.

    Raises:
        MissingPackage: pyarrow is not installed.
        ResultFileError: an annotation file cannot be used.
        RunEnded: the answers have neither boxes nor masks, two pictures would share a file, or it is there already.
    """
    asked = {task: found for task, found in classes.items() if options.tasks is None or task in options.tasks}
    if (options.coco or options.yolo) and not all(asked.get(task, ("?",)) for task in ("detect", "segment")):
        raise RunEnded("--coco and --yolo write names of classes, which this service does not tell", WRONG_USAGE)
    names = list(names)
    steps: list[Callable[[Path], str | None]] = []
    if options.csv is not None:
        steps.append(lambda path: write_csv(options.csv, read_records(path)))
    if options.parquet is not None:
        import_pyarrow()
        steps.append(lambda path: write_parquet(options.parquet, read_records(path)))
    if options.coco is not None:
        if not {"detect", "segment"} & asked.keys():
            raise RunEnded(f"--coco writes boxes and masks, and answers have {_name(asked)} alone", WRONG_USAGE)
        like = options.coco_like
        ids = CocoIds.of(classes) if like is None else CocoIds.read(like, names, classes)
        steps.append(partial(_write_coco, options, ids, asked))
    if options.yolo is not None:
        if "detect" not in asked:
            raise RunEnded(f"--yolo writes boxes, and answers have {_name(asked)} alone", WRONG_USAGE)
        places = plan_labels(options.yolo, names)
        boxes, scores = asked["detect"], options.yolo_scores
        steps.append(lambda path: write_labels(options.yolo, read_records(path), places, boxes, scores=scores))
    return lambda path: [told for step in steps if (told := step(path)) is not None]


def _name(tasks: Iterable[ModelTask]) -> str:
    return " and ".join({"segment": "masks", "detect": "boxes", "classify": "classes"}[task] for task in tasks)


def _write_coco(
    options: argparse.Namespace, ids: CocoIds, classes: Mapping[ModelTask, tuple[str, ...]], path: Path
) -> str | None:
    if options.coco_dataset:
        write_dataset(options.coco, lambda: read_records(path), ids, classes)
        return None
    left_out = write_results(options.coco, read_records(path), ids)
    if not left_out:
        return None
    labels = ", ".join(f"{label} {count}" for label, count in left_out.most_common())
    return f"{options.coco_like} has no category for boxes of {labels}; {options.coco} is without them"
