"""Teachers that are ONNX files: classifiers by anybody, and the files that our own export writes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
import torch.nn.functional as F
from torch import Tensor

from service.engine.contract import METADATA_KEY
from service.engine.session import OnnxSession, read_model
from service.errors import ContractError
from training.config import Task
from training.data.labelling.frame import Frame
from training.data.taxonomy import Taxonomy, TaxonomyError
from training.models.backbone import MEAN, STD
from training.teachers.imagenet import IMAGENET_SIZE, keep_classes
from training.teachers.teacher import Teacher, TeacherError

# Where the channels are in each type of input.
_CHANNEL_AXES = {"tensor(float)": 1, "tensor(uint8)": 3}
# An exported mask has no logits any more. This much above the others, its class has .999 of the probability among
# VOC's 21, and .88 at temperature 2.
_SURE = 10.0
# Stands for 0 under the logarithm.
_TINY = 1e-6


def open_onnx(path: Path, task: Task, taxonomy: Taxonomy) -> Teacher:
    """Open an ONNX file in ONNX Runtime, on the CPU.

    Raises:
        TeacherError: the file cannot be read, or cannot teach the task.
    """
    try:
        model = path.read_bytes()
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no class in common
        raise TeacherError(f"the teacher {path} cannot be loaded: {error}") from error
    if METADATA_KEY in session.get_modelmeta().custom_metadata_map:
        return ExportedTeacher(path, task, taxonomy)
    if task is not Task.CLASSIFICATION:
        raise TeacherError(f"the teacher {path} is no file of `unihead-export`, so it can only teach classification")
    try:
        return OnnxClassifier(session, taxonomy, sha256=hashlib.sha256(model).hexdigest())
    except TeacherError as error:
        raise TeacherError(f"the teacher {path}: {error}") from error


class OnnxClassifier:
    """A file with one picture input and one output of ImageNet's 1000 logits, or of as many as the data has classes.

    The input is float32 [N, 3, S, S], normalised by ImageNet's mean and deviation, or uint8 [N, S, S, 3] of raw RGB.
    """

    task = Task.CLASSIFICATION

    def __init__(self, session: Any, taxonomy: Taxonomy, *, sha256: str) -> None:  # noqa: ANN401 - ONNX Runtime has no types
        """Find out how the session is to be fed.

        Raises:
            TeacherError: its inputs or outputs are others.
        """
        inputs, outputs = session.get_inputs(), session.get_outputs()
        batch, *shape = inputs[0].shape if len(inputs[0].shape) == 4 else [0, 0]  # noqa: PLR2004 - N, C, H, W
        axis = _CHANNEL_AXES.get(inputs[0].type, 0)
        sides = {side for position, side in enumerate(shape, start=1) if position != axis}
        fixed = {side for side in sides if isinstance(side, int)}
        can_be_fed = axis and shape[axis - 1] == 3 and len(fixed) <= 1 and (batch == 1 or not isinstance(batch, int))  # noqa: PLR2004 - RGB
        if not can_be_fed or (len(inputs), len(outputs)) != (1, 1):
            found = ", ".join(f"{one.name} {one.type} {one.shape}" for one in (*inputs, *outputs))
            raise TeacherError(
                f"it has {found}; wanted one input, float [N, 3, S, S] or uint8 [N, S, S, 3] with N open or 1, "
                "and one output"
            )
        size = fixed.pop() if fixed else IMAGENET_SIZE
        self.frame = Frame(size, size, letterboxed=False)
        self.sha256 = sha256
        self._session = session
        self._taxonomy = taxonomy
        self._name = inputs[0].name
        self._is_float = axis == 1
        self._one_by_one = batch == 1

    def answer(self, images: Tensor) -> Tensor:
        """[N, S, S, 3] uint8 RGB to [N, P] logits."""
        pixels = images.numpy()
        if self._is_float:
            mean, std = (255 * np.array(values, dtype=np.float32) for values in (MEAN, STD))
            pixels = np.ascontiguousarray(((pixels - mean) / std).transpose(0, 3, 1, 2))
        pieces = np.split(pixels, len(pixels)) if self._one_by_one else [pixels]
        answers = [self._session.run(None, {self._name: piece})[0] for piece in pieces]
        return keep_classes(torch.from_numpy(np.concatenate(answers)), self._taxonomy)


class ExportedTeacher:
    """A file of `unihead-export`: its probabilities or its masks, turned back into logits.

    A mask knows only the best class of each cell, so a checkpoint of the same network teaches more.
    """

    def __init__(self, path: Path, task: Task, taxonomy: Taxonomy) -> None:
        """Load the file.

        Raises:
            TeacherError: its contract does not fit, it lacks one of the classes, or the task is detection.
        """
        try:
            self._session = OnnxSession(read_model(path), name=str(path))
        except ContractError as error:
            raise TeacherError(str(error)) from error
        contract = self._session.contract
        known = {
            Task.SEGMENTATION: contract.segmentation_classes,
            Task.CLASSIFICATION: contract.classification_classes,
        }
        if task not in known:
            raise TeacherError(f"the teacher {path} gives no logits of {task}; a checkpoint does")
        try:
            self._columns = list(taxonomy.match(task, known[task]))
        except TaxonomyError as error:
            raise TeacherError(f"the teacher {path} was trained with other classes of {task}: {error}") from error
        self._known = len(known[task])
        self.task = task
        self.frame = Frame(contract.input_size, contract.input_size, letterboxed=True)
        self.sha256 = self._session.sha256

    def answer(self, images: Tensor) -> Tensor:
        """[N, S, S, 3] uint8 RGB, letterboxed, to [N, G, h, w] or [N, P] logits."""
        outputs = self._session.run(images.numpy())
        if self.task is Task.CLASSIFICATION:
            probs = torch.from_numpy(outputs["class_probs"].astype(np.float32))
            return probs[:, self._columns].clamp(min=_TINY).log()
        mask = torch.from_numpy(outputs["mask"].astype(np.int64))
        return _SURE * F.one_hot(mask, self._known)[..., self._columns].permute(0, 3, 1, 2).float()
