"""From the few words that name a teacher to the teacher."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from training.config import Config, Task
from training.data.taxonomy import Taxonomy
from training.teachers.described import DescribedTeacher
from training.teachers.imagenet import find_columns
from training.teachers.networks import CheckpointTeacher, open_efficientnet_lite, open_torchvision
from training.teachers.onnx_files import open_onnx
from training.teachers.teacher import Teacher, TeacherError

_TORCHVISION = "torchvision:"
_LITE = re.compile(r"efficientnet_lite([012])")


def open_teacher(source: str, task: Task, *, taxonomy: Taxonomy, device: torch.device) -> Teacher:
    """Open a teacher.

    Args:
        source: FILE.pt, a checkpoint of ours, teaches what it has learned. FILE.onnx teaches classification, or
            segmentation if `unihead-export` wrote it. FILE.toml describes an ONNX file of any make that gives logits
            of one of the two. torchvision:NAME (downloaded) and efficientnet_lite0 to efficientnet_lite2 are ImageNet
            classifiers and teach classification.
        task: what it is to teach.
        taxonomy: the classes of the data, which are found by name among the teacher's.
        device: where it runs, unless it is an ONNX file: those run on the CPU.

    Raises:
        TeacherError: there is no such teacher, or it does not know the task or one of its classes.
    """
    if source.endswith(".pt"):
        return CheckpointTeacher(Path(source), task, taxonomy, device)
    if source.endswith(".onnx"):
        return open_onnx(Path(source), task, taxonomy)
    if source.endswith(".toml"):
        return DescribedTeacher(Path(source), task, taxonomy)
    lite = _LITE.fullmatch(source)
    if not lite and not source.startswith(_TORCHVISION):
        raise TeacherError(
            f"{source!r} is no teacher; wanted FILE.pt, FILE.onnx, FILE.toml, torchvision:NAME or efficientnet_lite0, "
            "1 or 2"
        )
    if task is not Task.CLASSIFICATION:
        raise TeacherError(f"{source} is a classifier and cannot teach {task}")
    if lite:
        return open_efficientnet_lite(int(lite[1]), taxonomy, device)
    return open_torchvision(source.removeprefix(_TORCHVISION), taxonomy, device)


def leave_out_strangers(config: Config, taxonomy: Taxonomy) -> tuple[Config, list[str]]:
    """Take from a config the classifiers of ImageNet that know none of the data's classes by name, or not all of them.

    Presets name such teachers, and must train on anybody's data all the same.

    Returns:
        The config, and a sentence for each teacher that was taken out.
    """
    stages, sentences = [], []
    for stage in config.stages:
        kept = []
        for teacher in stage.teachers:
            try:
                if _LITE.fullmatch(teacher.source) or teacher.source.startswith(_TORCHVISION):
                    find_columns(taxonomy)
                kept.append(teacher)
            except TeacherError as error:
                sentences.append(f"the teacher {teacher.source} of stage {stage.task} is left out: {error}")
        changed = len(kept) < len(stage.teachers)
        stages.append(stage.model_copy(update={"teachers": tuple(kept)}) if changed else stage)
    return (config.model_copy(update={"stages": tuple(stages)}) if sentences else config), sentences
