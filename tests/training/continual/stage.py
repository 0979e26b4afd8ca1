"""A stage in small: a network of few channels and few classes, pictures of noise in memory, a step."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from service.pictures.imaging import UInt8Array
from training.config import Config, DetectionLossConfig, ModelConfig, StageConfig, Task
from training.data.batches import Batch
from training.data.feed.dataset import TaskDataset
from training.data.taxonomy import Taxonomy
from training.data.transforms import Boxes, Target
from training.hooks.anchor import Anchor
from training.hooks.context import StageContext
from training.hooks.hook import Step
from training.models.multitask import MultiTaskModel, build_model

SIZE = 64
# Of three classes of masks the second is the second of the two in boxes.
TAXONOMY = Taxonomy(
    ("background", "cat", "sky"), ("dog", "cat"), ("spring", "summer", "autumn", "winter"), (("cat", "cat"),)
)
NUM_CLASSES = TAXONOMY.num_classes
CPU = torch.device("cpu")
HEADS: dict[str, dict[str, object]] = {
    "unified": {"head": "unified", "neck": "single"},
    "branches": {"head": "branches", "neck": "fpn", "reg_max": 4},
}


class Pictures(TaskDataset):
    """A data set that lies in memory."""

    def __init__(self, examples: Sequence[tuple[UInt8Array, Target]], config: Config) -> None:
        super().__init__((), config, TAXONOMY)
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def load(self, index: int) -> tuple[UInt8Array, Target]:
        return self._examples[index]

    def load_target(self, index: int) -> Target:
        return self.load(index)[1]


def make_config(stage: Mapping[str, object] | None = None, *, head: str = "unified") -> Config:
    """Segmentation, then detection, then classification with what `stage` says; batch-norm is frozen."""
    shape = {"backbone_weights": "random", "neck_channels": 8, "head_channels": 8, "batch_norm": "frozen"}
    return Config(
        preset="tiny",
        input_size=SIZE,
        model=ModelConfig.model_validate(shape | HEADS[head]),
        detection_loss=DetectionLossConfig(bce_epochs=1),  # the first epoch's loss differs from the last one's
        stages=(
            StageConfig(task=Task.SEGMENTATION, epochs=2),
            StageConfig(task=Task.DETECTION, epochs=2),
            StageConfig.model_validate({"task": "classification", "epochs": 2, **(stage or {})}),
        ),
    )


def make_examples(task: Task, count: int, *, seed: int = 0) -> list[tuple[UInt8Array, Target]]:
    """Noise; picture i shows class i, over and over: as the left half of a mask, a box, or the picture's class."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    targets: list[Target] = []
    for index in range(count):
        label = index % NUM_CLASSES[task]
        if task is Task.SEGMENTATION:
            mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
            mask[:, :32] = label
            targets.append(mask)
        elif task is Task.DETECTION:
            targets.append(Boxes(np.array([[4, 8, 40, 48]], dtype=np.float32), np.array([label])))
        else:
            targets.append(label)
    return list(zip(images, targets, strict=True))


def make_model(config: Config) -> MultiTaskModel:
    """A network whose features have the size of trained ones: batch-norm has seen a few pictures."""
    return copy.deepcopy(_build(config.model))


@functools.cache
def _build(config: ModelConfig) -> MultiTaskModel:
    torch.manual_seed(0)
    model = build_model(config, NUM_CLASSES).eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        model(torch.randint(0, 256, (4, SIZE, SIZE, 3), dtype=torch.uint8))
    for norm in norms:
        norm.momentum = 0.1
    return model.train()


def make_context(
    config: Config | None = None, *, anchors: Mapping[str, Anchor] | None = None, pictures: int = 4
) -> StageContext:
    """The last stage at its beginning; batch-norm is still, and what its learning rates freeze is frozen."""
    config = config or make_config()
    model = make_model(config)
    stage = config.stages[-1]
    model.begin_stage(
        frozen=[part for part in model.parts() if not stage.lr_factor(part)], still_norms=("backbone", "neck", "stem")
    )
    return StageContext(
        config=config,
        stage=stage,
        model=model,
        before={name: value.clone() for name, value in model.state_dict().items()},
        anchors=anchors or {},
        learned=(Task.SEGMENTATION, Task.DETECTION),
        datasets={task: Pictures(make_examples(task, pictures), config) for task in Task},
        device=CPU,
        taxonomy=TAXONOMY,
    )


def make_step(model: MultiTaskModel, *, progress: float = 0.5, seed: int = 7) -> Step:
    """A step on two pictures of noise of the last stage's task."""
    images = torch.randint(0, 256, (2, SIZE, SIZE, 3), dtype=torch.uint8, generator=torch.manual_seed(seed))
    batch = Batch(images, torch.tensor([0, 1]), torch.tensor([0, 1]))
    features = model.extract(images)
    return Step(batch, features, model.head.answer(features, Task.CLASSIFICATION), progress)


@torch.no_grad()
def disturb(model: MultiTaskModel, prefix: str = "", *, by: float = 0.2) -> None:
    """Move every weight whose name begins so, up or down by at most a share of itself."""
    for name, parameter in model.named_parameters():
        if name.startswith(prefix):
            noise = torch.rand(parameter.shape, generator=torch.manual_seed(len(name)))
            parameter.mul_(1 + by * (2 * noise - 1))


def find_gradients(loss: Tensor, model: MultiTaskModel) -> dict[str, Tensor]:
    """The gradients that are not zero, by name."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(
        loss, list(named.values()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return {name: value for name, value in zip(named, found, strict=True) if value.any()}
