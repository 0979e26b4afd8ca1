"""What would end a run after hours is looked at before its first step: its teachers, the disk, the memory."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from training.checkpoint import CHECKPOINT_NAME, Checkpoint
from training.config import Config, StageConfig, Task
from training.data.datasets import DataSets
from training.data.feed.dataset import TaskDataset, load_sample
from training.data.loaders import divide
from training.files import find_cache_folder
from training.teachers.cache import cache_answers
from training.teachers.points import open_point_teacher
from training.teachers.sources import open_teacher
from training.teachers.storage import ANSWERS_NAME
from training.teachers.teacher import TeacherError

_GIB = 2**30
_LOOKED_AT = 8  # pictures a task, spread over all, whose size is taken for that of the others


class ResourceError(RuntimeError):
    """The machine has not what a run needs."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What the teachers of a run have shown.

    Attributes:
        sha256: of each by its source.
        answer_bytes: what their answers to all pictures will take, at the most of a stage; in bytes.
    """

    sha256: Mapping[str, str]
    answer_bytes: int


def try_teachers(
    config: Config, sets: DataSets, device: torch.device, *, begins: int, ends: int, known: Mapping[str, str] | None
) -> Tried:
    """Open every teacher of the stages that will be trained, and ask it about the first picture of its stage.

    Args:
        config: of the run.
        sets: the data.
        device: where teachers run.
        begins: index of the first stage that will be trained.
        ends: index of the one before which the run ends.
        known: SHA-256 by source of what a run was begun with that goes on; None of one that begins.

    Raises:
        DataError: the picture cannot be read.
        TeacherError: a teacher cannot be had or cannot teach, or it is not the one that the run was begun with.
    """
    learned, _ = divide(sets, config)
    taxonomy = learned.taxonomy.keep([stage.task for stage in config.stages])
    found: dict[str, str] = {}
    most = 0
    for stage in config.stages[begins:ends]:
        pictures = learned.split(stage.task).train
        first = TaskDataset(pictures[:1], config, taxonomy)
        stage_bytes = 0
        for one in stage.teachers:
            try:
                task = one.task or stage.task
                if task is Task.DETECTION:  # it answers in every step, and nothing is kept
                    sha256 = open_point_teacher(one.source, config, taxonomy).sha256
                else:
                    teacher = open_teacher(one.source, task, taxonomy=taxonomy, device=device)
                    stage_bytes += cache_answers(teacher, first, taxonomy).nbytes * len(pictures)
                    sha256 = teacher.sha256
                found[one.source] = sha256
                was = (known or {}).get(one.source, sha256)
                if was != sha256:
                    raise TeacherError(
                        f"the teacher {one.source} is not the one that the run was begun with: its SHA-256 was "
                        f"{was[:12]}..., and is {sha256[:12]}..."
                    )
            except TeacherError as error:
                raise TeacherError(_explain(stage, one.source, error, goes_on=known is not None)) from error
        most = max(most, stage_bytes)
    return Tried(found, most)


def require_disk(out: Path, checkpoint: Checkpoint, *, free_bytes: int | None = None) -> None:
    """See that there is room for two checkpoints, for a new one is written before it takes the old one's place.

    Args:
        out: folder of the run; need not be there yet.
        checkpoint: of the run, to tell how large it will be.
        free_bytes: on the disk; None asks the system.

    Raises:
        ResourceError: there is not.
    """
    free = shutil.disk_usage(_find_existing(out)).free if free_bytes is None else free_bytes
    old = out / CHECKPOINT_NAME
    needed = 2 * estimate_checkpoint_bytes(checkpoint) - (old.stat().st_size if old.exists() else 0)
    if needed > free:
        raise ResourceError(
            f"the disk of {out} has {free / 2**20:.0f} MiB free, and two checkpoints need {needed / 2**20:.0f} MiB"
        )


def estimate_checkpoint_bytes(checkpoint: Checkpoint) -> int:
    """How large a run's checkpoint becomes: weights, those before the stage, two moments each, average, anchors."""
    config = checkpoint.parsed_config()
    copies = 1 + 1 + 2 + (any(stage.ema for stage in config.stages) or bool(config.polish.epochs))
    protected = {task for stage in config.stages for task in stage.ewc.strength}
    online = any(stage.ewc.online for stage in config.stages)
    anchors = 2 * (min(1, len(protected)) if online else len(protected))
    return (copies + anchors) * sum(value.nbytes for value in checkpoint.model.values())


def require_memory(checkpoint: Checkpoint, sets: DataSets, tried: Tried, *, limit_bytes: int) -> None:
    """See that what is kept in memory through a run is no more than there is: pictures, and teachers' answers.

    Answers are in memory where no cache is kept on disk, or its disk has no room for them. It is the least that a run
    takes: the network, its activations and torch come on top.

    Args:
        checkpoint: of the run, to tell which stages are left.
        sets: the data.
        tried: the teachers.
        limit_bytes: of the machine or the container.

    Raises:
        DataError: a picture cannot be read.
        ResourceError: it is more.
    """
    config = checkpoint.parsed_config()
    polishes = checkpoint.end > len(config.stages)
    folder = find_cache_folder(ANSWERS_NAME)
    is_mapped = folder is not None and shutil.disk_usage(_find_existing(folder)).free > tried.answer_bytes
    answers = 0 if is_mapped else tried.answer_bytes
    pictures = estimate_picture_bytes(config, sets, config.stages[0 if polishes else checkpoint.stage : checkpoint.end])
    if pictures + answers > limit_bytes:
        raise ResourceError(
            f"there are {limit_bytes / _GIB:.1f} GiB of memory, and a run of preset {config.preset} keeps "
            f"{pictures / _GIB:.1f} GiB of decoded pictures and {answers / _GIB:.1f} GiB of teachers' "
            "answers; lower cache_mib in the preset"
        )


def estimate_picture_bytes(config: Config, sets: DataSets, stages: Sequence[StageConfig]) -> int:
    """How much the decoded pictures of some stages take, by the mean size of a few; at most `cache_mib`."""
    learned, _ = divide(sets, config)
    total = 0
    for stage in stages:
        samples = learned.split(stage.task).train
        places = np.unique(np.linspace(0, len(samples) - 1, _LOOKED_AT).round().astype(int)).tolist()
        sizes = []
        for place in places:
            image, target = load_sample(samples[place], learned.taxonomy)
            sizes.append(image.nbytes + (target.nbytes if isinstance(target, np.ndarray) else 0))
        total += round(float(np.mean(sizes)) * len(samples))
    return min(config.cache_mib * 2**20, total)


def _find_existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(each for each in (folder, *folder.absolute().parents) if each.is_dir())


def _explain(stage: StageConfig, source: str, error: TeacherError, *, goes_on: bool) -> str:
    advice = f"; if it lies elsewhere now, say so with --teacher {source}=NEW" if goes_on else ""
    return f"stage {stage.task}: {error}{advice}"
