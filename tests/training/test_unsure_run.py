"""A whole run on labels that are not sure, some of which weigh more than others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.fakes import make_branches_config, make_config
from tests.training.there import there
from tests.training.watched import CPU, KilledError, assert_same_run, finish, kill_after_batches
from training.config import Config
from training.data.datasets import DataSets, DetectionSample
from training.data.taxonomy import ANY_CLASS, MINI
from training.stages import Run

STAGE = {
    "task": "detection",
    "epochs": 2,
    "batch_size": 2,
    "sampling": "class",
    "sampling_threshold": 0.5,
    "augment": {"mosaic": 0.5, "scale": (0.5, 2.0)},
}


def make_unsure(sets: DataSets) -> DataSets:
    """Every box has a score, every picture a region, every second one knows a few classes, the last weighs more."""
    split = there(sets.detection)

    def doubt(number: int, sample: DetectionSample) -> DetectionSample:
        return replace(
            sample,
            scores=np.full(len(sample.boxes), 0.4, dtype=np.float32),
            ignored=np.array([[2, 2, 30, 30], [20, 10, 40, 30]], dtype=np.float32),
            ignored_labels=np.array([ANY_CLASS, 16]),
            known=(0, 16, 17) if number % 2 else None,
        )

    train = tuple(doubt(number, sample) for number, sample in enumerate(split.train))
    return replace(sets, detection=replace(split, train=train, weights=(1.0,) * (len(train) - 1) + (3.0,)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [make_config(stages=[STAGE]), make_branches_config(stages=[STAGE])], ids=["cells", "points"]
)
def test_a_run_on_unsure_labels_learns_and_goes_on_to_the_same_end(
    sets: DataSets, tmp_path: Path, config: Config
) -> None:
    unsure, whole, killed = make_unsure(sets), tmp_path / "whole", tmp_path / "killed"
    run = finish(Run.start(config, whole, CPU, taxonomy=MINI), unsure, whole)
    losses = [entry["losses"]["loss"] for entry in run.checkpoint.history if entry["kind"] == "epoch"]
    assert np.isfinite(losses).all()
    with pytest.raises(KilledError):
        finish(Run.start(config, killed, CPU, taxonomy=MINI), unsure, killed, on_batch=kill_after_batches(4))
    torch.manual_seed(99)  # another process has another state of chance
    finish(Run.resume(killed, CPU), unsure, killed)
    assert_same_run(killed, whole)
    sure = tmp_path / "sure"
    plain = finish(Run.start(config, sure, CPU, taxonomy=MINI), sets, sure)
    assert plain.checkpoint.history[0]["losses"] != run.checkpoint.history[0]["losses"]
