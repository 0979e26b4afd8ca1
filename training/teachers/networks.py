"""Teachers that run in torch: checkpoints of our own, and classifiers with ImageNet weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import models

from training.checkpoint import CheckpointError, load_checkpoint
from training.config import Task
from training.data.labelling.frame import Frame
from training.data.taxonomy import Taxonomy, TaxonomyError
from training.inference import compute_weights_sha256, restore_model
from training.models.backbone import WeightsError
from training.models.efficientnet_lite import load_efficientnet_lite
from training.teachers.imagenet import IMAGENET_CLASSES, find_columns
from training.teachers.teacher import TeacherError

# TensorFlow's lite models: 127 levels around 127, and a size that grows with the network.
LITE_MEAN, LITE_STD = 127.0, 128.0
LITE_SIZES = {0: 224, 1: 240, 2: 260}


class CheckpointTeacher:
    """A network of ours with any backbone; it sees pictures at the size that it was trained at."""

    def __init__(self, path: Path, task: Task, taxonomy: Taxonomy, device: torch.device) -> None:
        """Restore the network.

        Raises:
            TeacherError: the file is no checkpoint, its backbone cannot be built, or it has not learned the task or one
                of its classes.
        """
        try:
            checkpoint = load_checkpoint(path)
            model = restore_model(checkpoint)
        except (CheckpointError, WeightsError) as error:
            raise TeacherError(f"the teacher {path} cannot be restored: {error}") from error
        config = checkpoint.parsed_config()
        if task not in checkpoint.learned:
            learned = [str(one) for one in checkpoint.learned]
            raise TeacherError(f"the teacher {path} has learned {learned}; wanted {task}")
        theirs = checkpoint.taxonomy.names(task)
        try:
            columns = taxonomy.match(task, theirs)
        except TaxonomyError as error:
            raise TeacherError(f"the teacher {path} does not know the data's classes of {task}: {error}") from error
        self._columns = list(columns) if columns != tuple(range(len(theirs))) else None
        if self._columns and task is Task.DETECTION:  # what its logits stand for is the scheme's affair
            raise TeacherError(f"the teacher {path} has the classes of {task} in another order, or others too")
        self.task = task
        self.frame = Frame(config.input_size, config.input_size, letterboxed=True)
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self._model = model.eval().to(device)
        self._device = device

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        """[N, S, S, 3] uint8 RGB, letterboxed, to the logits of the task; detection's are as the scheme has them."""
        logits = self._model.head.answer(self._model.extract(images.to(self._device)), self.task)
        return logits if self._columns is None else logits[:, self._columns]


class ImagenetTeacher:
    """A classifier of ImageNet's thousand classes, of which those that are to be taught are read."""

    task = Task.CLASSIFICATION

    def __init__(
        self,
        network: nn.Module,
        *,
        input_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        columns: Sequence[int],
        device: torch.device,
    ) -> None:
        """Hold the network.

        Args:
            network: [N, 3, S, S] normalised RGB to [N, 1000] logits.
            input_size: what it was trained at; in pixels.
            mean: of its normalisation, a channel; in levels of 0..255.
            std: likewise.
            columns: of the logits, that are read.
            device: where it is to run.
        """
        self.frame = Frame(input_size, input_size, letterboxed=False)
        self.sha256 = compute_weights_sha256(network.state_dict())
        self._columns = list(columns)
        self._network = network.eval().to(device)
        self._mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, 3, 1, 1)

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        """[N, S, S, 3] uint8 RGB to [N, P] logits."""
        pixels = images.to(self._mean.device).permute(0, 3, 1, 2).float()
        logits: Tensor = self._network((pixels - self._mean) / self._std)
        if logits.shape[1:] != (len(IMAGENET_CLASSES),):
            raise TeacherError(f"a classification teacher gave {tuple(logits.shape)}; wanted ImageNet's 1000 classes")
        return logits[:, self._columns]


def open_efficientnet_lite(number: int, taxonomy: Taxonomy, device: torch.device) -> ImagenetTeacher:
    """Open EfficientNet-Lite 0, 1 or 2.

    Raises:
        TeacherError: its packages are not installed, or ImageNet has not all of the classes.
    """
    columns = find_columns(taxonomy)
    try:
        network = load_efficientnet_lite(number)
    except WeightsError as error:
        raise TeacherError(str(error)) from error
    mean, std = (LITE_MEAN,) * 3, (LITE_STD,) * 3
    return ImagenetTeacher(network, input_size=LITE_SIZES[number], mean=mean, std=std, columns=columns, device=device)


def open_torchvision(name: str, taxonomy: Taxonomy, device: torch.device) -> ImagenetTeacher:
    """Open a classifier of torchvision with its best weights, which are downloaded if they are not there yet.

    Raises:
        TeacherError: there is no such classifier, it does not know the classes, or its weights cannot be downloaded.
    """
    try:
        weights = models.get_model_weights(name).DEFAULT
    except ValueError as error:
        raise TeacherError(f"torchvision has no model {name!r}; see torchvision.models.list_models()") from error
    names = tuple(weights.meta["categories"])
    if names != IMAGENET_CLASSES:
        raise TeacherError(f"torchvision:{name} knows {len(names)} classes; wanted a classifier of ImageNet's 1000")
    columns = find_columns(taxonomy, names)
    try:
        network = models.get_model(name, weights=weights)
    except (OSError, RuntimeError) as error:  # the latter: a download of which a part is missing
        raise TeacherError(f"the weights of torchvision:{name} cannot be downloaded: {error}") from error
    preset = weights.transforms()
    mean, std = (tuple(255 * value for value in values) for values in (preset.mean, preset.std))
    size = preset.crop_size[0]
    return ImagenetTeacher(network, input_size=size, mean=mean, std=std, columns=columns, device=device)
