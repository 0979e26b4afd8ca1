"""Batches for one task: pictures decoded once and kept, shuffled and augmented by the seed, the same in every run."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.pictures.imaging import FloatArray, UInt8Array
from training.config import Config
from training.data.augment import Recipe, augment
from training.data.batches import Batch, collate
from training.data.datasets import (
    ClassificationSample,
    DataSets,
    DetectionSample,
    SegmentationSample,
    Split,
    load_image,
    load_segmentation,
)
from training.data.taxonomy import Taxonomy
from training.data.transforms import Boxes, Target, to_input
from training.options.augment import AugmentConfig

Sample: TypeAlias = SegmentationSample | DetectionSample | ClassificationSample
SampleT = TypeVar("SampleT", SegmentationSample, DetectionSample, ClassificationSample)

_LARGEST_ID = 255


def hold_out(sets: DataSets, share: float) -> DataSets:
    """Measure on a share of the training pictures in place of the validation split, so that choices do not see it.

    Which pictures, only their number and the share decide: every seed is measured on the same.
    """
    if not share:
        return sets
    return DataSets(
        taxonomy=sets.taxonomy,
        segmentation=sets.segmentation and _hold_out(sets.segmentation, share),
        detection=sets.detection and _hold_out(sets.detection, share),
        classification=sets.classification and _hold_out(sets.classification, share),
    )


def _hold_out(split: Split[SampleT], share: float) -> Split[SampleT]:
    count = len(split.train)
    held = set(np.random.default_rng(count).permutation(count)[: max(1, round(count * share))].tolist())
    return Split(
        train=tuple(sample for index, sample in enumerate(split.train) if index not in held),
        val=tuple(sample for index, sample in enumerate(split.train) if index in held),
        choose=split.choose,
    )


def load_sample(sample: Sample, taxonomy: Taxonomy) -> tuple[UInt8Array, Target]:
    """Decode one picture, as the service does, with its labels in pixels of the picture."""
    if isinstance(sample, SegmentationSample):
        return load_segmentation(sample, len(taxonomy.segmentation))
    image = load_image(sample.image)
    if isinstance(sample, DetectionSample):
        return image, Boxes(sample.boxes, sample.labels)
    return image, sample.label


class TaskDataset:
    """The training pictures of one task; decoded ones are kept until `cache_mib` is full."""

    def __init__(self, samples: Sequence[Sample], config: Config, taxonomy: Taxonomy) -> None:
        self._samples = samples
        self._config = config
        self._taxonomy = taxonomy
        self._cache: dict[int, tuple[UInt8Array, Target]] = {}
        self._free_bytes = config.cache_mib * 2**20

    def __len__(self) -> int:
        return len(self._samples)

    def load(self, index: int) -> tuple[UInt8Array, Target]:
        """One picture and its labels in pixels of the picture; not to be changed."""
        return self._cache.get(index) or self._load(index)

    def pick(self, rng: np.random.Generator) -> tuple[UInt8Array, Target]:
        """Any picture and its labels, for augmentations that mix pictures."""
        return self.load(int(rng.integers(len(self))))

    @functools.cached_property
    def class_weights(self) -> FloatArray | None:
        """[C] one by the share of the pictures that show a class, for crops around rare ones; None for classification.

        Reads every picture once.
        """
        if isinstance(self._samples[0], ClassificationSample):
            return None
        shown = np.zeros(_LARGEST_ID + 1, dtype=np.float32)
        for index in range(len(self)):
            target = self.load(index)[1]
            shown[np.unique(target.labels if isinstance(target, Boxes) else target)] += 1
        return (len(self) / np.maximum(shown, 1)).astype(np.float32)

    def count_pixels(self) -> NDArray[np.int64]:
        """[G] pixels of each segmentation class in all masks, at their original size; void is left out."""
        counts = np.zeros(_LARGEST_ID + 1, dtype=np.int64)
        for index in range(len(self)):
            target = self.load(index)[1]
            if isinstance(target, np.ndarray):
                counts += np.bincount(target.ravel(), minlength=len(counts))
        return counts[: len(self._taxonomy.segmentation)]

    def make_batch(self, indices: Sequence[int]) -> Batch:
        """The pictures letterboxed as the service does it, without augmentation."""
        size, stride = self._config.input_size, self._config.inference.mask_stride
        return collate([to_input(*self.load(index), size=size, mask_stride=stride) for index in indices], indices)

    def _load(self, index: int) -> tuple[UInt8Array, Target]:
        image, target = load_sample(self._samples[index], self._taxonomy)
        size = image.nbytes + (target.nbytes if isinstance(target, np.ndarray) else 0)
        if size <= self._free_bytes:
            self._free_bytes -= size
            self._cache[index] = image, target
        return image, target


def count_batches(pictures: int, batch_size: int) -> int:
    """Say how many batches `iterate_batches` makes of so many pictures."""
    return len(_batch_starts(pictures, batch_size))


def iterate_batches(
    dataset: TaskDataset, config: Config, *, batch_size: int, options: AugmentConfig, rng: np.random.Generator
) -> Iterator[Batch]:
    """Go through the pictures once in an order that `rng` draws; the short last batch is kept.

    A last batch of one picture joins the one before it: the statistics of a single picture are no batch's.
    """
    order = rng.permutation(len(dataset))
    mirrored = rng.random(len(dataset)) < 0.5 if options.flip else np.zeros(len(dataset), dtype=bool)  # noqa: PLR2004 - a coin
    starts = _batch_starts(len(order), batch_size)
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        chosen = order[start:end].tolist()
        size = int(rng.choice(options.sizes)) if options.sizes else config.input_size
        weights = dataset.class_weights if options.focus else None
        recipe = Recipe(options, size, config.inference.mask_stride, dataset.pick, weights)
        examples = [augment(rng, *dataset.load(index), recipe, mirrored=bool(mirrored[index])) for index in chosen]
        batch = collate([(example.image, example.target) for example in examples], chosen)
        yield batch._replace(placements=tuple(example.placement for example in examples))


def _batch_starts(pictures: int, batch_size: int) -> list[int]:
    starts = list(range(0, pictures, batch_size))
    return starts[:-1] if len(starts) > 1 and pictures - starts[-1] == 1 else starts
