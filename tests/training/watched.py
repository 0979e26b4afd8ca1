"""Runs that are watched, and killed where a test says so."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console
from torch import Tensor

from training.checkpoint import CHECKPOINT_NAME, load_checkpoint
from training.config import Config, Task
from training.data.datasets import DataSets
from training.metrics.details import DETAILS_FOLDER
from training.progress import METRICS_NAME, RunProgress
from training.stages import Run
from training.stopping import UNWATCHED, Watch

CPU = torch.device("cpu")


class KilledError(Exception):
    """Stands for a kill: nothing after it runs."""


class Watched(RunProgress):
    """Calls back before an entry is shown or pictures are counted, which may kill the run."""

    def __init__(
        self,
        config: Config,
        out: Path,
        *,
        on_entry: Callable[[Mapping[str, Any]], None] = lambda _: None,
        on_batch: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config, dict.fromkeys(Task, 6), out, Console(file=io.StringIO()))
        self._on_entry = on_entry
        self._on_batch = on_batch

    def advance(self, stage: str, pictures: int) -> None:
        self._on_batch()
        super().advance(stage, pictures)

    def record(self, history: Sequence[Mapping[str, Any]]) -> None:
        self._on_entry(history[-1])
        super().record(history)


def finish(
    run: Run,
    sets: DataSets,
    out: Path,
    *,
    measure_every: int = 1,
    run_watch: Watch = UNWATCHED,
    **watch: Any,  # noqa: ANN401 - callbacks of Watched
) -> Run:
    with Watched(run.checkpoint.parsed_config(), out, **watch) as progress:
        run.finish(sets, progress, measure_every=measure_every, watch=run_watch)
    return run


def kill_at(kind: str, stage: Task, epoch: int | None = None) -> Callable[[Mapping[str, Any]], None]:
    def on_entry(entry: Mapping[str, Any]) -> None:
        if (entry["kind"], entry["stage"], entry.get("epoch")) == (kind, stage, epoch):
            raise KilledError

    return on_entry


def refuse(entry: Mapping[str, Any]) -> NoReturn:
    raise AssertionError(f"nothing was left to do, but there is a new entry: {entry}")


def kill_after_batches(count: int) -> Callable[[], None]:
    left = iter(range(count))

    def on_batch() -> None:
        if next(left, None) is None:
            raise KilledError

    return on_batch


def without_times(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    times = {"seconds", "measure_seconds", "fisher_seconds", "ms_per_image"}
    return [{key: value for key, value in entry.items() if key not in times} for entry in history]


def read_metrics(out: Path) -> list[dict[str, Any]]:
    def refuse_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON")

    lines = (out / METRICS_NAME).read_text(encoding="utf-8").splitlines()
    return [json.loads(line, parse_constant=refuse_constant) for line in lines]


def assert_same_tensors(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def assert_same_run(out: Path, reference: Path) -> None:
    """The same weights, anchors, history and answers, to the bit; times apart."""
    found, expected = (load_checkpoint(folder / CHECKPOINT_NAME) for folder in (out, reference))
    assert (found.stage, found.epoch) == (expected.stage, expected.epoch)
    assert_same_tensors(found.model, expected.model)
    assert found.anchors.keys() == expected.anchors.keys()
    for task, anchor in found.anchors.items():
        assert_same_tensors(anchor.parameters, expected.anchors[task].parameters)
        assert_same_tensors(anchor.importance, expected.anchors[task].importance)
    assert without_times(found.history) == without_times(expected.history)
    assert read_metrics(out) == found.history
    assert read_folder(out / DETAILS_FOLDER) == read_folder(reference / DETAILS_FOLDER)


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
