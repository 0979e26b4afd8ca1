"""The training pictures of one task, each with its labels: decoded when they are asked for, and kept."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from service.pictures.imaging import FloatArray, UInt8Array
from training.config import Config
from training.data.batches import Batch, collate
from training.data.datasets import (
    ClassificationSample,
    DataError,
    DataSets,
    DetectionSample,
    SegmentationSample,
    load_detection,
    load_image,
    load_segmentation,
    read_mask,
)
from training.data.feed.ahead import Readers, count_threads
from training.data.feed.cache import PictureCache
from training.data.sets.sampling import find_shares
from training.data.taxonomy import Taxonomy
from training.data.transforms import Boxes, Target, to_input
from training.files import hash_file
from training.options.base import Task

Sample: TypeAlias = SegmentationSample | DetectionSample | ClassificationSample

_LARGEST_ID = 255
_TASKS: Mapping[type, Task] = {
    SegmentationSample: Task.SEGMENTATION,
    DetectionSample: Task.DETECTION,
    ClassificationSample: Task.CLASSIFICATION,
}
_AT_ONCE = 64

Loaded = TypeVar("Loaded")


def load_sample(sample: Sample, taxonomy: Taxonomy) -> tuple[UInt8Array, Target]:
    """Decode one picture, as the service does, with its labels in pixels of the picture."""
    if isinstance(sample, SegmentationSample):
        return load_segmentation(sample, len(taxonomy.segmentation))
    if isinstance(sample, DetectionSample):
        return load_detection(sample, len(taxonomy.detection))
    return load_image(sample.image), sample.label


def load_target(sample: Sample, taxonomy: Taxonomy) -> Target:
    """The labels alone, which cost less than their picture; whether they fit it is not looked at.

    Of boxes without what is ignored or unknown: regions may be as large as the picture, and that is not read.
    """
    if isinstance(sample, SegmentationSample):
        return read_mask(sample.mask, len(taxonomy.segmentation), sample.values)
    return Boxes(sample.boxes, sample.labels) if isinstance(sample, DetectionSample) else sample.label


class TaskDataset:
    """The training pictures of one task; decoded ones are kept as long as the cache has room.

    Attributes:
        readers: the threads that read them.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        config: Config,
        taxonomy: Taxonomy,
        weights: Sequence[float] = (),
        *,
        cache: PictureCache | None = None,
        readers: Readers | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            samples: the pictures.
            config: of the run.
            taxonomy: the classes that labels are positions of.
            weights: how often each is drawn, beside others, as `Split` has them.
            cache: that the tasks of the run share; one of its own if not given.
            readers: read several pictures at once; if not given, one is read after the other.
        """
        self._samples = samples
        self._weights = weights
        self._config = config
        self._taxonomy = taxonomy
        self._cache = (cache or PictureCache(config.cache_mib)).open_part(len(samples))
        self.readers = readers or Readers()

    def __len__(self) -> int:
        return len(self._samples)

    def load(self, index: int) -> tuple[UInt8Array, Target]:
        """One picture and its labels in pixels of the picture; not to be changed."""
        found = self._cache.get(index)
        if found is None:
            found = load_sample(self._samples[index], self._taxonomy)
            self._cache.keep(index, found)
        return found

    def load_all(self, indices: Sequence[int]) -> list[tuple[UInt8Array, Target]]:
        """Some pictures and their labels as `load` gives them."""
        return list(self.readers.map(self.load, indices))

    def load_digests(self) -> Iterator[bytes]:
        """SHA-256 of the file of every picture, in order."""
        yield from self._each(self.load_digest)

    def load_digest(self, index: int) -> bytes:
        """SHA-256 of a picture's file.

        Raises:
            DataError: it cannot be read.
        """
        path = self._samples[index].image
        try:
            return bytes.fromhex(hash_file(path))
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}; wanted a picture") from error

    def load_targets(self) -> Iterator[Target]:
        """The labels of every picture, in order; no picture is decoded for them."""
        yield from self._each(self.load_target)

    def load_target(self, index: int) -> Target:
        """The labels of one picture, see `load_target`."""
        return load_target(self._samples[index], self._taxonomy)

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

        Reads every picture's labels once.
        """
        if isinstance(self._samples[0], ClassificationSample):
            return None
        shown = np.zeros(_LARGEST_ID + 1, dtype=np.float32)
        for target in self.load_targets():
            shown[np.unique(target.labels if isinstance(target, Boxes) else target)] += 1
        return (len(self) / np.maximum(shown, 1)).astype(np.float32)

    def count_pixels(self) -> NDArray[np.int64]:
        """[G] pixels of each segmentation class in all masks, at their original size; void is left out."""
        counts = np.zeros(_LARGEST_ID + 1, dtype=np.int64)
        for target in self.load_targets():
            if isinstance(target, np.ndarray):
                counts += np.bincount(target.ravel(), minlength=len(counts))
        return counts[: len(self._taxonomy.segmentation)]

    def make_batch(self, indices: Sequence[int]) -> Batch:
        """The pictures letterboxed as the service does it, without augmentation."""
        size, stride = self._config.input_size, self._config.inference.mask_stride
        return collate([to_input(*one, size=size, mask_stride=stride) for one in self.load_all(indices)], indices)

    def _each(self, load: Callable[[int], Loaded]) -> Iterator[Loaded]:
        for start in range(0, len(self), _AT_ONCE):  # all at once would be all in memory
            yield from self.readers.map(load, range(start, min(start + _AT_ONCE, len(self))))


def open_datasets(
    sets: DataSets, config: Config, device: torch.device, *, processes: int = 1
) -> dict[Task, TaskDataset]:
    """The training pictures of all stages, in their order; they share one cache and the threads that read.

    Args:
        sets: the pictures.
        config: of the run.
        device: of the network, which leaves the CPU to the readers or shares it with them.
        processes: that train together on this machine.

    Raises:
        DataError: the data has nothing of a stage's task.
    """
    cache = PictureCache(config.cache_mib)
    readers = Readers(count_threads(config.workers, device, processes=processes))
    splits = {stage.task: sets.split(stage.task) for stage in config.stages}
    return {
        task: TaskDataset(split.train, config, sets.taxonomy, split.weights, cache=cache, readers=readers)
        for task, split in splits.items()
    }
