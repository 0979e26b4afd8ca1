import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.fakes import make_config
from tests.training.there import there
from tests.training.watched import (
    CPU,
    KilledError,
    assert_same_run,
    finish,
    kill_after_batches,
    kill_at,
    refuse,
)
from training.checkpoint import CHECKPOINT_NAME, CheckpointError, load_checkpoint
from training.config import Task
from training.data.datasets import DataSets
from training.data.taxonomy import MINI
from training.stages import Run


@pytest.mark.slow
@pytest.mark.parametrize(
    "watch",
    [
        {"on_batch": kill_after_batches(1)},
        {"on_entry": kill_at("epoch", Task.SEGMENTATION, 2)},
        {"on_entry": kill_at("evaluation", Task.SEGMENTATION)},
        {"on_batch": kill_after_batches(3 * 2 + 3 + 1)},
        {"on_entry": kill_at("evaluation", Task.DETECTION)},
        {"on_entry": kill_at("epoch", Task.CLASSIFICATION, 2)},
        {"on_entry": kill_at("evaluation", Task.CLASSIFICATION)},
    ],
    ids=[
        "first epoch",
        "last epoch of a stage",
        "first evaluation",
        "amid the second stage",
        "second evaluation",
        "last epoch",
        "last evaluation",
    ],
)
def test_a_killed_run_goes_on_to_the_same_end(
    sets: DataSets, finished_run: Path, tmp_path: Path, watch: dict[str, Any]
) -> None:
    with pytest.raises(KilledError):
        finish(Run.start(make_config(), tmp_path, CPU, taxonomy=MINI), sets, tmp_path, **watch)
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME).stage < 3
    torch.manual_seed(99)  # another process has another state of chance
    finish(Run.resume(tmp_path, CPU), sets, tmp_path)
    assert_same_run(tmp_path, finished_run)


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(sets: DataSets, finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / CHECKPOINT_NAME).read_bytes()
    finish(Run.resume(tmp_path, CPU), sets, tmp_path, on_entry=refuse)
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == before
    assert_same_run(tmp_path, finished_run)


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_data(sets: DataSets, finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    fewer = replace(sets, detection=replace(there(sets.detection), train=there(sets.detection).train[1:]))
    with pytest.raises(CheckpointError, match="begun with"):
        finish(Run.resume(tmp_path, CPU), fewer, tmp_path)
