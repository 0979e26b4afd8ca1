"""Batches for one task: pictures held out or not, shuffled and augmented by the seed, the same in every run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from training.config import Config
from training.data.augment import Recipe, augment
from training.data.batches import Batch, collate
from training.data.datasets import (
    ClassificationSample,
    DataSets,
    DetectionSample,
    SegmentationSample,
    Split,
)
from training.data.feed.ahead import Ahead
from training.data.feed.dataset import TaskDataset
from training.data.sets.sampling import resample
from training.options.augment import AugmentConfig

SampleT = TypeVar("SampleT", SegmentationSample, DetectionSample, ClassificationSample)


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
            augment(rng, *picture, recipe, mirrored=mirrored)
            for picture, mirrored in zip(dataset.load_all(chosen), self._mirrored[start:end].tolist(), strict=True)
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


def draw_batches(
    dataset: TaskDataset,
    config: Config,
    *,
    batch_size: int,
    options: AugmentConfig,
    rng: np.random.Generator,
    endless: bool = False,
) -> Ahead:
    """`Batches` with these arguments, made ahead of the step by the data set's readers."""
    batches = Batches(dataset, config, batch_size=batch_size, options=options, rng=rng, endless=endless)
    return dataset.readers.make_ahead(batches)


def _batch_starts(pictures: int, batch_size: int) -> list[int]:
    starts = list(range(0, pictures, batch_size))
    return starts[:-1] if len(starts) > 1 and pictures - starts[-1] == 1 else starts
