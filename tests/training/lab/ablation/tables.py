"""A table of four rows, results by hand, and a trainer that answers at once."""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from training.config import Task
from training.lab.ablation.records import Record, Results
from training.lab.ablation.run import Plan, run_table
from training.lab.ablation.table import (
    Experiment,
    load_table,
)

SEGMENTATION, DETECTION, CLASSIFICATION = Task
TINY = """
[base]
preset = "tiny"
input_size = 64
holdout = 0.34
model = { backbone_weights = "random", neck = "fpn", neck_channels = 16, head = "branches" }
[base.stages]
segmentation = { epochs = 1, batch_size = 2, augment = { scale = [0.5, 2.0], colour = 0.3 } }
detection = { epochs = 1, batch_size = 2 }
classification = { epochs = 1, batch_size = 2 }

[[rows]]
name = "pan"
direction = "scales"
sentence = "A bottom-up path"
overrides.model.neck = "pan"
"""
MORE = """
[[rows]]
name = "ewc"
direction = "forgetting"
sentence = "EWC | constant"
[rows.overrides.stages.detection.ewc]
strength = { segmentation = 10 }

[[rows]]
name = "mosaic"
direction = "data"
sentence = "Mosaics"
overrides.stages.detection.augment.mosaic = 0.5
"""


def read_table(folder: Path, text: str) -> tuple[Experiment, ...]:
    path = folder / "table.toml"
    path.write_text(text, encoding="utf-8")
    return load_table(path)


def make_results(*end: float, own: tuple[float, ...] | None = None) -> Results:
    """Mean IoU, mAP@0.5 and top-1 at the end, and after the own stage; the same if not given."""

    def by_task(values: tuple[float, ...]) -> dict[Task, dict[str, float]]:
        return {
            task: {name: value} for task, name, value in zip(Task, ("mean_iou", "map_50", "top_1"), values, strict=True)
        }

    return Results(
        own=by_task(own or end),
        end=by_task(end),
        drops={SEGMENTATION: 0, DETECTION: 0},
        held_out=dict.fromkeys(Task, 24),
        seconds=240.4,
        parameters=1_000_000,
        ms_per_image=12.0,
    )


class Trainer:
    """Leaves a file in the row's folder and answers at once; fails where it is told to."""

    def __init__(self, fail: Collection[str] = (), error: BaseException | None = None, **ends: float) -> None:
        self.fail = fail
        self.error = error or RuntimeError("the loss became\nnan")
        self.ends = ends
        self.calls: list[tuple[str, int]] = []

    def __call__(self, experiment: Experiment, seed: int, out: Path) -> Results:
        self.calls.append((experiment.name, seed))
        out.mkdir(parents=True)
        (out / "checkpoint.pt").touch()
        if experiment.name in self.fail:
            raise self.error
        return make_results(self.ends.get(experiment.name, 0.3), 0.1, 0.8)


def run_all(table: tuple[Experiment, ...], folder: Path, train: Trainer, **changes: Any) -> list[str]:  # noqa: ANN401 - fields of Plan
    """Run the table; give back what was told."""
    told: list[str] = []
    options: dict[str, Any] = {"seeds": [0], "best": None, "keep": False, "machine": "a toaster", **changes}
    run_table(Plan(table, folder / "ablation.jsonl", work=folder / "work", **options), train, told.append)
    return told


def read_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "ablation.jsonl").read_text(encoding="utf-8").splitlines()]


def make_record(experiment: Experiment, results: Results | None, *, seed: int = 0, error: str | None = None) -> Record:
    return Record(
        name=experiment.name,
        direction=experiment.direction,
        seed=seed,
        digest=experiment.digest,
        git_commit="0123456789ab",
        machine="a toaster",
        results=results,
        error=error,
    )


def row_of(text: str, name: str) -> list[str]:
    """The cells of a row of the report."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
