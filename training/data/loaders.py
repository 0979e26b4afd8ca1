"""Batches for one task: pictures decoded once and kept, shuffled and augmented by the seed, the same in every run."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.pictures.imaging import FloatArray, UInt8Array
from training.config import Config, Task
from training.data.augment import Recipe, augment
from training.data.batches import Batch, collate
from training.data.datasets import (
    ClassificationSample,
    DataSets,
    DetectionSample,
    SegmentationSample,
    Split,
    load_detection,
    load_image,
    load_segmentation,
)
from training.data.sets.sampling import find_shares, resample
from training.data.taxonomy import Taxonomy
from training.data.transforms import Boxes, Target, to_input
from training.options.augment import AugmentConfig

Sample: TypeAlias = SegmentationSample | DetectionSample | ClassificationSample
SampleT = TypeVar("SampleT", SegmentationSample, DetectionSample, ClassificationSample)

_LARGEST_ID = 255
_TASKS: Mapping[type, Task] = {
    SegmentationSample: Task.SEGMENTATION,
    DetectionSample: Task.DETECTION,
    ClassificationSample: Task.CLASSIFICATION,
}


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


def divide(sets: DataSets, config: Config) -> tuple[DataSets, DataSets]:
    """Give what a run learns from and is measured on; then, as what is `watched` of it, what judges its polish.

    Whether to keep a polish is a choice. Where the data has no pictures for choices, and nothing is held out for all of
    them, it has pictures of its own.
    """
    measured = hold_out(sets, config.holdout)
    if config.holdout or not config.polish.epochs:
        return measured, measured
    judged = DataSets(
        taxonomy=sets.taxonomy,
        segmentation=sets.segmentation and _judge(sets.segmentation, config.polish.holdout),
        detection=sets.detection and _judge(sets.detection, config.polish.holdout),
        classification=sets.classification and _judge(sets.classification, config.polish.holdout),
    )
    learned = DataSets(
        taxonomy=sets.taxonomy,
        segmentation=_measured_on(judged.segmentation, sets.segmentation),
        detection=_measured_on(judged.detection, sets.detection),
        classification=_measured_on(judged.classification, sets.classification),
    )
    return learned, judged


def _judge(split: Split[SampleT], share: float) -> Split[SampleT]:
    return split if split.choose else _hold_out(split, share)


def _measured_on(learned: Split[SampleT] | None, measured: Split[SampleT] | None) -> Split[SampleT] | None:
    return learned and measured and replace(measured, train=learned.train, weights=learned.weights)


def _hold_out(split: Split[SampleT], share: float) -> Split[SampleT]:
    count = len(split.train)
    held = set(np.random.default_rng(count).permutation(count)[: max(1, round(count * share))].tolist())
    return Split(
        train=tuple(sample for index, sample in enumerate(split.train) if index not in held),
        val=tuple(sample for index, sample in enumerate(split.train) if index in held),
        choose=split.choose,
        weights=tuple(weight for index, weight in enumerate(split.weights) if index not in held),
        held_out=True,
    )


def load_sample(sample: Sample, taxonomy: Taxonomy) -> tuple[UInt8Array, Target]:
    """Decode one picture, as the service does, with its labels in pixels of the picture."""
    if isinstance(sample, SegmentationSample):
        return load_segmentation(sample, len(taxonomy.segmentation))
    if isinstance(sample, DetectionSample):
        return load_detection(sample, len(taxonomy.detection))
    return load_image(sample.image), sample.label


class TaskDataset:
    """The training pictures of one task; decoded ones are kept until `cache_mib` is full."""

    def __init__(
        self, samples: Sequence[Sample], config: Config, taxonomy: Taxonomy, weights: Sequence[float] = ()
    ) -> None:
        """Read nothing yet.

        Args:
            samples: of one task.
            config: of the run.
            taxonomy: what the samples' labels mean.
            weights: how often each is drawn, beside others, as `Split` has them.
        """
        self._samples = samples
        self._weights = weights
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
        if self.shares is None:
            return self.load(int(rng.integers(len(self))))
        return self.load(int(rng.choice(len(self), p=self.shares)))

    @functools.cached_property
    def shares(self) -> NDArray[np.float64] | None:
        """[len] of an epoch that each picture has, as its source and the stage's sampling say; None: all alike."""
        task = _TASKS[type(self._samples[0])]
        stage = next((stage for stage in self._config.stages if stage.task is task), None)
        threshold = stage.sampling_threshold if stage is not None and stage.sampling == "class" else None
        num_classes = len(self._taxonomy.names(task))
        return find_shares(self._samples, self._weights, threshold=threshold, num_classes=num_classes)

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
    """Say how many batches `Batches` makes of so many pictures."""
    return len(_batch_starts(pictures, batch_size))


class Batches(Iterator[Batch]):
    """Goes through the pictures in an order that a generator draws, once or round and round.

    A round has as many draws as there are pictures. Where some are to come more often, others are left out of it.

    The short last batch is kept; if it has one picture, it joins the one before it: the statistics of a single picture
    are no batch's.
    """

    def __init__(
        self,
        dataset: TaskDataset,
        config: Config,
        *,
        batch_size: int,
        options: AugmentConfig,
        rng: np.random.Generator,
        endless: bool = False,
    ) -> None:
        """Draw the order.

        Args:
            dataset: the pictures.
            config: of the run.
            batch_size: pictures in a batch.
            options: what may be done to them.
            rng: draws everything; nobody else may draw from it as long as batches are taken.
            endless: begin again, in another order, after the last.
        """
        self._dataset = dataset
        self._config = config
        self._options = options
        self._rng = rng
        self._endless = endless
        starts = _batch_starts(len(dataset), batch_size)
        self._bounds = list(zip(starts, [*starts[1:], len(dataset)], strict=True))
        self._begin_round()

    def __next__(self) -> Batch:
        """Make the next batch."""
        if self._done == len(self._bounds):
            if not self._endless:
                raise StopIteration
            self._begin_round()
        start, end = self._bounds[self._done]
        self._done += 1
        dataset, options, rng = self._dataset, self._options, self._rng
        chosen = self._order[start:end].tolist()
        size = int(rng.choice(options.sizes)) if options.sizes else self._config.input_size
        weights = dataset.class_weights if options.focus else None
        recipe = Recipe(options, size, self._config.inference.mask_stride, dataset.pick, weights)
        examples = [
            augment(rng, *dataset.load(index), recipe, mirrored=mirrored)
            for index, mirrored in zip(chosen, self._mirrored[start:end].tolist(), strict=True)
        ]
        batch = collate([(example.image, example.target) for example in examples], chosen)
        return batch._replace(placements=tuple(example.placement for example in examples))

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on."""
        return {"round": self._round, "done": self._done, "rng": self._rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken; the pictures before are not read."""
        self._rng.bit_generator.state = state["round"]
        self._begin_round()
        self._done = state["done"]
        self._rng.bit_generator.state = state["rng"]

    def _begin_round(self) -> None:
        self._round = self._rng.bit_generator.state
        count, shares = len(self._dataset), self._dataset.shares
        self._order = self._rng.permutation(count) if shares is None else resample(self._rng, shares)
        coins = self._rng.random(count) < 0.5 if self._options.flip else np.zeros(count, dtype=bool)  # noqa: PLR2004 - a coin
        # A coin for each picture; where one may come twice, for each draw.
        self._mirrored = coins[self._order] if shares is None else coins
        self._done = 0


def _batch_starts(pictures: int, batch_size: int) -> list[int]:
    starts = list(range(0, pictures, batch_size))
    return starts[:-1] if len(starts) > 1 and pictures - starts[-1] == 1 else starts
