"""Which output row of the last layers stands for which class, so that rows can be taken over by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from training.config import ModelConfig, Task
from training.models.heads import BOX_ROWS, UNIFIED_ORDER


class Row(NamedTuple):
    """What one output row says.

    Attributes:
        task: that reads it.
        name: of the class; empty where it is about a box.
        place: among those that are about a box; 0 of a class.
    """

    task: Task
    name: str = ""
    place: int = 0


def label_rows(config: ModelConfig, names: Mapping[Task, Sequence[str]]) -> dict[str, tuple[Row, ...]]:
    """Label the rows of every layer that has one row per class.

    Args:
        config: of the network.
        names: of the classes, for each task that the network has a head for.

    Returns:
        By the layer's name in the network, its rows in order.
    """
    classes = {task: tuple(Row(task, name) for name in own) for task, own in names.items()}
    if config.head == "unified":
        boxes = tuple(Row(Task.DETECTION, place=place) for place in range(BOX_ROWS))
        rows = [
            row
            for task in UNIFIED_ORDER
            if task in classes
            for row in (*(boxes if task is Task.DETECTION else ()), *classes[task])
        ]
        return {"head.predict": tuple(rows)}
    masks = ("predict_coarse", "predict_fine") if config.segmentation == "lraspp" else ("predict",)
    layers = {Task.SEGMENTATION: masks, Task.DETECTION: ("scores",), Task.CLASSIFICATION: ("predict",)}
    return {f"head.{task}.{layer}": classes[task] for task in classes for layer in layers[task]}
