"""Models of one, two or three of the tasks: what each of them must say, and nothing else."""

from __future__ import annotations

import itertools

from service.engine.contract import MODEL_TASKS, ModelTask

SUBSETS = [tasks for count in (1, 2, 3) for tasks in itertools.combinations(MODEL_TASKS, count)]
FIELDS: dict[ModelTask, set[str]] = {
    "segment": {"segments", "mask"},
    "detect": {"detections"},
    "classify": {"classes"},
}
OUTPUTS: dict[ModelTask, list[str]] = {
    "detect": ["boxes", "scores", "labels", "num_detections"],
    "segment": ["mask"],
    "classify": ["class_probs"],
}
ALWAYS = {"model", "image", "timing_ms"}


def outputs_of(tasks: tuple[ModelTask, ...]) -> list[str]:
    return [name for task, names in OUTPUTS.items() if task in tasks for name in names]


def fields_of(tasks: tuple[ModelTask, ...]) -> set[str]:
    return ALWAYS | {field for task in tasks for field in FIELDS[task]}
