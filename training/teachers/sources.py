"""From the few words that name a teacher to the teacher."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from training.config import Task
from training.teachers.networks import CheckpointTeacher, open_efficientnet_lite, open_torchvision
from training.teachers.onnx_files import open_onnx
from training.teachers.teacher import Teacher, TeacherError

_TORCHVISION = "torchvision:"


def open_teacher(source: str, task: Task, *, device: torch.device) -> Teacher:
    """Open a teacher.

    Args:
        source: FILE.pt, a checkpoint of ours, teaches what it has learned. FILE.onnx teaches classification, or
            segmentation if `unihead-export` wrote it. torchvision:NAME (downloaded) and efficientnet_lite0 to
            efficientnet_lite2 are ImageNet classifiers and teach classification.
        task: what it is to teach.
        device: where it runs, unless it is an ONNX file: those run on the CPU.

    Raises:
        TeacherError: there is no such teacher, or it does not know the task.
    """
    if source.endswith(".pt"):
        return CheckpointTeacher(Path(source), task, device)
    if source.endswith(".onnx"):
        return open_onnx(Path(source), task)
    lite = re.fullmatch(r"efficientnet_lite([012])", source)
    if not lite and not source.startswith(_TORCHVISION):
        raise TeacherError(
            f"{source!r} is no teacher; wanted FILE.pt, FILE.onnx, torchvision:NAME or efficientnet_lite0, 1 or 2"
        )
    if task is not Task.CLASSIFICATION:
        raise TeacherError(f"{source} is a classifier and cannot teach {task}")
    if lite:
        return open_efficientnet_lite(int(lite[1]), device)
    return open_torchvision(source.removeprefix(_TORCHVISION), device)
