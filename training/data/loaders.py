"""Batches for one task: pictures decoded once and kept, shuffled and mirrored by the seed, the same in every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from service.imaging import UInt8Array
from training.assigner import CellTargets, assign_to_cells
from training.config import Config, Task
from training.data.classes import VOC_CLASSES
from training.data.datasets import (
    ClassificationSample,
    DetectionSample,
    MiniSets,
    SegmentationSample,
    Split,
    load_image,
    load_segmentation,
)
from training.data.transforms import Boxes, Target, flip, to_input
from training.models.backbone import STRIDE

Sample: TypeAlias = SegmentationSample | DetectionSample | ClassificationSample
BatchTargets: TypeAlias = Tensor | tuple[CellTargets, ...]


class Batch(NamedTuple):
    """Letterboxed pictures and what the task's loss wants to know of them.

    Attributes:
        images: [N, S, S, 3] uint8 RGB.
        targets: masks [N, S / mask_stride, S / mask_stride] int64, cell targets per picture, or class ids [N].
    """

    images: Tensor
    targets: BatchTargets


def split_of(
    sets: MiniSets, task: Task
) -> Split[SegmentationSample] | Split[DetectionSample] | Split[ClassificationSample]:
    """Choose the set of a task."""
    if task is Task.SEGMENTATION:
        return sets.segmentation
    if task is Task.DETECTION:
        return sets.detection
    return sets.classification


def load_sample(sample: Sample) -> tuple[UInt8Array, Target]:
    """Decode one picture, as the service does, with its labels in pixels of the picture."""
    if isinstance(sample, SegmentationSample):
        return load_segmentation(sample, len(VOC_CLASSES))
    image = load_image(sample.image)
    if isinstance(sample, DetectionSample):
        return image, Boxes(sample.boxes, sample.labels)
    return image, sample.label


class TaskDataset:
    """The pictures of one task, letterboxed; decoded ones are kept until `cache_mib` is full."""

    def __init__(self, samples: Sequence[Sample], config: Config) -> None:
        self._samples = samples
        self._config = config
        self._cache: dict[int, tuple[UInt8Array, Target]] = {}
        self._free_bytes = config.cache_mib * 2**20

    def __len__(self) -> int:
        return len(self._samples)

    def get(self, index: int, *, mirrored: bool) -> tuple[UInt8Array, Target]:
        """One picture and its target in input pixels, mirrored or not."""
        example = self._cache.get(index) or self._load(index)
        image, target = flip(*example) if mirrored else example
        return to_input(image, target, size=self._config.input_size, mask_stride=self._config.inference.mask_stride)

    def _load(self, index: int) -> tuple[UInt8Array, Target]:
        image, target = load_sample(self._samples[index])
        size = image.nbytes + (target.nbytes if isinstance(target, np.ndarray) else 0)
        if size <= self._free_bytes:
            self._free_bytes -= size
            self._cache[index] = image, target
        return image, target


def count_batches(pictures: int, batch_size: int) -> int:
    """Say how many batches `iterate_batches` makes of so many pictures."""
    return len(_batch_starts(pictures, batch_size))


def iterate_batches(
    dataset: TaskDataset, config: Config, *, batch_size: int, mirror: bool, rng: np.random.Generator
) -> Iterator[Batch]:
    """Go through the pictures once in an order that `rng` draws; the short last batch is kept.

    A last batch of one picture joins the one before it: the statistics of a single picture are no batch's.
    """
    order = rng.permutation(len(dataset))
    mirrored = rng.random(len(dataset)) < 0.5 if mirror else np.zeros(len(dataset), dtype=bool)  # noqa: PLR2004 - a coin
    starts = _batch_starts(len(order), batch_size)
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        chosen = order[start:end].tolist()
        yield collate([dataset.get(index, mirrored=bool(mirrored[index])) for index in chosen], config)


def _batch_starts(pictures: int, batch_size: int) -> list[int]:
    starts = list(range(0, pictures, batch_size))
    return starts[:-1] if len(starts) > 1 and pictures - starts[-1] == 1 else starts


def collate(examples: Sequence[tuple[UInt8Array, Target]], config: Config) -> Batch:
    """Stack letterboxed pictures of one task into a batch."""
    images = torch.from_numpy(np.stack([image for image, _ in examples]))
    targets = [target for _, target in examples]
    if isinstance(targets[0], Boxes):
        return Batch(
            images,
            tuple(
                assign_to_cells(
                    torch.from_numpy(target.boxes),
                    torch.from_numpy(target.labels),
                    grid_size=config.input_size // STRIDE,
                    stride=STRIDE,
                )
                for target in targets
                if isinstance(target, Boxes)
            ),
        )
    return Batch(images, torch.from_numpy(np.stack([np.asarray(target) for target in targets])).long())
