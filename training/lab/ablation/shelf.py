"""Stages that several rows of a table have in common, trained once: a row goes on where another has been."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.config import Config
from training.lab.ablation.table import Experiment, compute_digest
from training.options.polish import PolishConfig


def describe_prefix(config: Config, stages: int) -> str:
    """Digest all that decides how a run stands after its first `stages` stages; the seed counts.

    Of what comes later only one thing reaches back: Fisher information is estimated as the stage asks that will use it.
    """
    learned = {stage.task for stage in config.stages[:stages]}
    later = [stage.ewc for stage in config.stages[stages:] if learned & set(stage.ewc.strength)]
    kept = config.model_copy(update={"stages": config.stages[:stages], "polish": PolishConfig()})
    return compute_digest(
        {"config": kept.model_dump(mode="json"), "ewc": [ewc.model_dump(mode="json") for ewc in later]}
    )


class Shelf:
    """Checkpoints between two stages, each under the digest of what led to it; only those that two rows can use.

    The folder is emptied first: code that has changed since would give other weights.
    """

    def __init__(self, folder: Path, experiments: Sequence[Experiment], seeds: Sequence[int]) -> None:
        """Take note of what the runs have in common.

        Args:
            folder: holds the checkpoints; made when there is one.
            experiments: the table.
            seeds: of all rows.
        """
        self._folder = folder
        configs = [one.config.model_copy(update={"seed": seed}) for seed in seeds for one in experiments]
        counts = Counter(describe_prefix(config, count) for config in configs for count in range(1, len(config.stages)))
        self._shared = {prefix for prefix, count in counts.items() if count > 1}
        if folder.exists():
            shutil.rmtree(folder)

    def take(self, config: Config) -> Checkpoint | None:
        """Give the furthest checkpoint that a run of this config would pass, as that run's own; or None."""
        for stages in range(len(config.stages) - 1, 0, -1):
            path = self._path(config, stages)
            if path.exists():
                return replace(load_checkpoint(path), config=config.model_dump(mode="json"))
        return None

    def keep(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint that stands between two stages, where another row can go on from it."""
        config = checkpoint.parsed_config()
        if checkpoint.stage < len(config.stages) and describe_prefix(config, checkpoint.stage) in self._shared:
            path = self._path(config, checkpoint.stage)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_checkpoint(checkpoint, path)

    def _path(self, config: Config, stages: int) -> Path:
        return self._folder / f"{describe_prefix(config, stages)}.pt"
