"""Teachers whose answers can be worked out by hand, and the small things that they are tried on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from service.pictures.imaging import UInt8Array
from training.checkpoint import Checkpoint, save_checkpoint
from training.config import Config, ModelConfig, StageConfig, Task
from training.data.datasets import ClassificationSample
from training.data.feed.dataset import TaskDataset
from training.data.labelling.frame import Frame
from training.data.taxonomy import MINI, Taxonomy
from training.data.transforms import Target
from training.models.multitask import MultiTaskModel, build_model

SIZE = 64
CPU = torch.device("cpu")


def make_config(tasks: Sequence[Task] = tuple(Task)) -> Config:
    model = ModelConfig(backbone_weights="random", neck_channels=16, head_channels=16)
    stages = tuple(StageConfig(task=task, epochs=1, batch_size=2) for task in tasks)
    return Config(preset="test", input_size=SIZE, model=model, stages=stages)


def make_model(seed: int = 0) -> MultiTaskModel:
    torch.manual_seed(seed)
    return build_model(make_config().model, MINI.num_classes)


def write_checkpoint(path: Path, *, stage: int = 3, seed: int = 0, taxonomy: Taxonomy = MINI) -> MultiTaskModel:
    """Save a network that has done so many stages, and give it back."""
    model, config = make_model(seed), make_config().model_dump(mode="json")
    save_checkpoint(Checkpoint(config, "unknown", model.state_dict(), stage, taxonomy=taxonomy), path)
    return model


class Pictures(TaskDataset):
    """Pictures that were never on disk; None of their labels is of use."""

    def __init__(self, images: Sequence[UInt8Array], targets: Sequence[Target] | None = None) -> None:
        super().__init__([ClassificationSample(Path(), 0)] * len(images), make_config(), MINI)
        self.images = images
        self.targets = targets or [0] * len(images)

    def load(self, index: int) -> tuple[UInt8Array, Target]:
        return self.images[index], self.targets[index]

    def load_target(self, index: int) -> Target:
        return self.load(index)[1]

    def load_digest(self, index: int) -> bytes:
        return hashlib.sha256(self.images[index].tobytes()).digest()


def make_pictures(*sizes: tuple[int, int], seed: int = 0) -> Pictures:
    """Noise of these heights and widths."""
    rng = np.random.default_rng(seed)
    return Pictures([rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes])


class ColourTeacher:
    """Tells the mean colour of each cell of `stride` pixels, or of the whole square, as the logits of three classes."""

    def __init__(
        self, task: Task, *, stride: int = 8, letterboxed: bool = True, sha256: str = "colours", input_size: int = SIZE
    ) -> None:
        self.task, self.stride, self.sha256 = task, stride, sha256
        self.frame = Frame(input_size, input_size, letterboxed)
        self.shown: list[UInt8Array] = []

    def answer(self, images: Tensor) -> Tensor:
        self.shown.extend(images.numpy())
        colours = F.avg_pool2d(images.permute(0, 3, 1, 2).float() / 16, self.stride)
        logits = F.pad(colours, (0, 0, 0, 0, 0, MINI.num_classes[self.task] - 3))
        return logits if self.task is Task.SEGMENTATION else logits.mean(dim=(2, 3))
