"""What a run tells while it runs: bars with the time left, a line per epoch, metrics as JSON lines and TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from torch.utils.tensorboard import SummaryWriter

from training.config import Config, Task
from training.files import write_whole
from training.metrics.evaluation import PRIMARY_METRIC
from training.options.polish import POLISH

METRICS_NAME = "metrics.jsonl"


class Progress:
    """What a run tells of itself. This class: nothing, as suits all processes of a run but the first."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def restore(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Begin where the history of a resumed run ends."""

    def advance(self, stage: str, pictures: int) -> None:
        """Say that `pictures` more have been learned from in a stage, which is named by its task, or in the polish."""

    def record(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Say that the history has a new last entry."""


class RunProgress(Progress):
    """Shows and writes a run's history; a context manager, so that the terminal is given back."""

    def __init__(
        self,
        config: Config,
        pictures: Mapping[Task, int],
        out: Path,
        console: Console,
        *,
        stages: Collection[str] | None = None,
    ) -> None:
        """Prepare the bars.

        Args:
            config: of the run.
            pictures: training pictures per task.
            out: folder of the run.
            console: where to show it.
            stages: names of those that the run trains, the polish is one; None: all of the config.
        """
        self._out = out
        self._console = console
        self._epochs = {str(stage.task): stage.epochs for stage in config.stages}
        self._pictures = {str(task): count for task, count in pictures.items()}
        if config.polish.epochs:
            self._epochs[POLISH] = config.polish.epochs
            self._pictures[POLISH] = max(pictures[stage.task] for stage in config.stages)
        if stages is not None:
            self._epochs = {name: epochs for name, epochs in self._epochs.items() if name in stages}
        self._bars = Bars(
            TextColumn("{task.description:>14}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("pictures"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
        )
        self._whole = self._bars.add_task("whole run", total=sum(self._totals().values()))
        self._stage_bars = {name: self._bars.add_task(name, total=total) for name, total in self._totals().items()}
        self._writer = SummaryWriter(str(out / "tensorboard"))

    def _totals(self) -> dict[str, int]:
        return {stage: epochs * self._pictures[stage] for stage, epochs in self._epochs.items()}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
        self._writer.close()

    def restore(self, history: Sequence[Mapping[str, Any]]) -> None:
        """As `Progress`."""
        for entry in history:
            if entry["kind"] == "epoch":
                self.advance(entry["stage"], self._pictures[entry["stage"]])
        _write_lines(history, self._out / METRICS_NAME)

    def advance(self, stage: str, pictures: int) -> None:
        """As `Progress`."""
        self._bars.advance(self._whole, pictures)
        self._bars.advance(self._stage_bars[stage], pictures)

    def record(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write the history, whose last entry is new, and show that entry."""
        _write_lines(history, self._out / METRICS_NAME)
        entry = history[-1]
        if entry["kind"] == "epoch":
            step = sum(1 for earlier in history if earlier["kind"] == "epoch")
            for name, value in entry["losses"].items():
                self._writer.add_scalar(f"{entry['stage']}/{name}", value, step)
            losses = "  ".join(f"{name} {value:.4f}" for name, value in entry["losses"].items())
            self._console.print(
                f"{entry['stage']} {entry['epoch']}/{self._epochs[entry['stage']]}  {losses}  {entry['seconds']:.1f} s",
                highlight=False,
            )
        elif entry["kind"] == "polish":
            for task, metrics in entry["before"].items():
                name = PRIMARY_METRIC[Task(task)]
                self._console.print(
                    f"polish {'kept' if entry['kept'] else 'undone'}: {task}  {name} {metrics[name]:.4f} -> "
                    f"{entry['after'][task][name]:.4f}",
                    highlight=False,
                )
        else:
            stage = len({earlier["stage"] for earlier in history})
            for task, metrics in entry["metrics"].items():
                for name, value in metrics.items():
                    self._writer.add_scalar(f"after_stage/{task}/{name}", value, stage)
                shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
                split = entry.get("splits", {}).get(task, "val")
                on = "" if split == "val" else f", on {split}"
                self._console.print(f"after {entry['stage']}{on}: {task}  {shown}", highlight=False)
        self._writer.flush()


def _write_lines(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    write_whole(path, "".join(json.dumps(entry) + "\n" for entry in history))
