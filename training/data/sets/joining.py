"""Several sources of one task as one set of samples: classes joined by name, never by id, and no picture twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from training.data.datasets import ClassificationSample, DataSets, DetectionSample, SegmentationSample, Split
from training.data.layouts.faults import DataError
from training.data.layouts.outlines import Outlines
from training.data.layouts.readings import MIN_SIDE_PX, Labelled, Reading
from training.data.sets.data_file import BACKGROUND, VOID_NAME, DataFile, Source
from training.data.sets.leaks import find_leaks, find_same_names
from training.data.sets.opening import Opened
from training.data.sets.whole_pictures import heed_image_labels
from training.data.taxonomy import ANY_CLASS, VOC_SAME_AS_COCO, VOID, Taxonomy
from training.options.base import Task

_SPLITS: Final = ("train", "val", "choose")
_NO_LABEL: Final = -1  # of a value that nothing names
_IGNORED: Final = -2  # of a name that is void
_LEFT_OUT: Final = -3  # of a box whose name is background
_NO_CLASS: Final = frozenset({VOID_NAME, BACKGROUND})
_SHOWN: Final = 8  # names in a sentence

SampleT = TypeVar("SampleT", SegmentationSample, DetectionSample, ClassificationSample)
Labels: TypeAlias = NDArray[np.int64]
# Picture, the model's label of each label of its reading, its source, the labels that its source knows.
Maker: TypeAlias = Callable[[Labelled, Labels, Source, tuple[int, ...] | None], SampleT | None]


def join(data: DataFile, opened: Sequence[Opened]) -> tuple[DataSets, list[str]]:
    """Make samples of all sources.

    Returns:
        The data, and what was mended: a line each.

    Raises:
        DataError: a class has no place among the names, two names differ in spelling alone, or a task lacks a split.
    """
    taxonomy = name_classes(data, opened)
    told: list[str] = []
    sources = {task: [each for each in opened if each.source.task is task] for task in Task}
    segmentation = detection = classification = None
    if sources[Task.SEGMENTATION]:
        segmentation = _join_task(sources[Task.SEGMENTATION], taxonomy, _make_segmentation, told)
    if sources[Task.DETECTION]:
        make_detection = partial(_make_detection, names=taxonomy.detection)
        detection = _join_task(sources[Task.DETECTION], taxonomy, make_detection, told)
    if sources[Task.CLASSIFICATION]:
        classification = _join_task(sources[Task.CLASSIFICATION], taxonomy, _make_classification, told)
    return DataSets(taxonomy, segmentation, detection, classification), told


def name_classes(data: DataFile, opened: Sequence[Opened]) -> Taxonomy:
    """The classes of all sources: those that the data file lists, else the sources' own in their order.

    Raises:
        DataError: a source has a class that the data file does not list, or two names differ in spelling alone.
    """
    names: dict[Task, tuple[str, ...]] = {}
    for task in data.tasks:
        sources = [each for each in opened if each.source.task is task]
        listed = data.classes.names(task)
        found = tuple(dict.fromkeys(name for each in sources for name in each.names if name not in _NO_CLASS))
        if task is Task.SEGMENTATION:
            # Background comes first, whether a source has it or not: what is drawn and counted leaves label 0 out.
            first = next((name for name in listed or found if name.strip("_").casefold() == BACKGROUND), BACKGROUND)
            listed, found = (tuple(dict.fromkeys((first, *some))) if some else some for some in (listed, found))
        for each in sources:
            strange = [name for name in each.names if name not in {*listed, *_NO_CLASS}] if listed else []
            if strange:
                raise DataError(
                    f"{each.place}: has the class {strange[0]!r}, which is none of the {len(listed)} of {task}; write "
                    f'aliases = {{"{strange[0]}" = "..."}} (or "void"), or add it to [classes]'
                )
        names[task] = listed or found
        _check_spellings(names[task], sources)
    segmentation, detection = names.get(Task.SEGMENTATION, ()), names.get(Task.DETECTION, ())
    same = _pair(segmentation, detection, data.same)
    return Taxonomy(segmentation, detection, names.get(Task.CLASSIFICATION, ()), same)


def _pair(
    segmentation: Sequence[str], detection: Sequence[str], given: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    """Each class of masks with the class of boxes that is the same thing: as given, of the same name, or as in VOC."""
    for one, other in given.items():
        if one not in segmentation or other not in detection:
            wrong = one if one not in segmentation else other
            raise DataError(f"[same]: {one!r} = {other!r}, and {wrong!r} is no class of the data; mend its name")
    usual = dict(VOC_SAME_AS_COCO)
    pairs = []
    for name in segmentation[1:]:
        twin = next((other for other in (given.get(name), name, usual.get(name)) if other in detection), None)
        if twin is not None:
            pairs.append((name, twin))
    return tuple(pairs)


def _check_spellings(names: Sequence[str], sources: Sequence[Opened]) -> None:
    spelt: dict[str, str] = {}
    for name in names:
        other = spelt.setdefault(" ".join(name.casefold().replace("_", " ").split()), name)
        if other != name:
            place = next((each.place for each in sources if name in each.names), "the data")
            raise DataError(
                f"{place}: the classes {other!r} and {name!r} differ in spelling alone; name them alike, or write "
                f'aliases = {{"{name}" = "{other}"}} into a data file'
            )


def _join_task(sources: Sequence[Opened], taxonomy: Taxonomy, make: Maker[SampleT], told: list[str]) -> Split[SampleT]:
    """The samples of one task by split; what is measured is dropped from what is learned."""
    samples: dict[str, list[SampleT]] = {split: [] for split in _SPLITS}
    weights: list[float] = []
    for opened in sources:
        names = taxonomy.names(opened.source.task)
        known = _known(opened, names)
        for split in _SPLITS:
            if (reading := opened.readings.get(split)) is not None:
                labels = _label(reading, names)
                made = (make(picture, labels, opened.source, known) for picture in reading.pictures)
                samples[split] += [sample for sample in made if sample is not None]
        weights += [opened.source.weight] * (len(samples["train"]) - len(weights))
    _require_splits(sources, samples)
    leaked = find_leaks(
        [sample.image for sample in samples["train"]],
        [sample.image for split in ("val", "choose") for sample in samples[split]],
    )
    for opened in sources:
        images = {split: [each.image for each in reading.pictures] for split, reading in opened.readings.items()}
        leaked |= find_same_names(images.get("train", []), images.get("val", []) + images.get("choose", []))
    places = " and ".join(str(each.place) for each in sources)
    if leaked:
        some = ", ".join(sorted(path.name for path in leaked)[:_SHOWN])
        more = f" and {len(leaked) - _SHOWN} more" if len(leaked) > _SHOWN else ""
        told.append(f"{places}: left out of train, because val or choose has them too: {some}{more}")
    kept = [index for index, sample in enumerate(samples["train"]) if sample.image not in leaked]
    if not kept:
        raise DataError(f"{places}: every picture of train is measured too; wanted others to learn from")
    return Split(
        train=tuple(samples["train"][index] for index in kept),
        val=tuple(samples["val"]),
        choose=tuple(samples["choose"]),
        weights=tuple(weights[index] for index in kept) if len(set(weights)) > 1 else (),
    )


def _require_splits(sources: Sequence[Opened], samples: Mapping[str, Sequence[object]]) -> None:
    for split, cure in (("train", 'a source with split = "train"'), ("val", "hold_out = 0.1, a share of train")):
        if not samples[split] and not (split == "val" and samples["choose"]):
            places = " and ".join(str(each.place) for each in sources)
            raise DataError(
                f"{places}: {sources[0].source.task} has no picture in {split}; wanted a folder {split}, or in a data "
                f"file {cure}"
            )


def _label(reading: Reading, names: Sequence[str]) -> Labels:
    """The model's label of each label (or mask value) that a reading has."""
    place = {name: label for label, name in enumerate(names)}
    place = {VOID_NAME: _IGNORED, BACKGROUND: _LEFT_OUT, **place}
    own = [place.get(name or "", _NO_LABEL) for name in reading.names]
    return np.array(own, dtype=np.int64)


def _known(opened: Opened, names: Sequence[str]) -> tuple[int, ...] | None:
    """The labels that a source tells from background; None for all of them."""
    known = opened.source.known
    for key, listed in (("known", () if known == "all" else known), ("image_labels", opened.source.image_labels)):
        if strange := [name for name in listed if name not in names]:
            raise DataError(f"{opened.place}: {key} has {strange[0]!r}, which is no class of the data; mend its name")
    pictures = (picture for reading in opened.readings.values() for picture in reading.pictures)
    if opened.source.image_labels and all(picture.shown is None for picture in pictures):
        raise DataError(f"{opened.place}: no picture has a list image_labels; take image_labels out of the data file")
    if known == "all":
        return None
    has = set(known or opened.names)
    labels = tuple(label for label, name in enumerate(names) if name in has)
    return labels if len(labels) < len(names) else None


def _make_segmentation(
    picture: Labelled, labels: Labels, source: Source, known: tuple[int, ...] | None
) -> SegmentationSample | None:
    del source, known
    if picture.mask is None:
        return None
    values = np.full(256, _NO_LABEL)
    values[: len(labels)] = np.where(labels == _IGNORED, VOID, labels)
    if values[VOID] == _NO_LABEL:
        values[VOID] = VOID
    if isinstance(picture.mask, Outlines):
        shapes = tuple((int(values[value]), shape) for value, shape in picture.mask.shapes)
        return SegmentationSample(picture.image, Outlines(picture.mask.width, picture.mask.height, shapes))
    is_plain = all(label in {value, _NO_LABEL} for value, label in enumerate(values[:VOID].tolist()))
    return SegmentationSample(picture.image, picture.mask, None if is_plain else tuple(values.tolist()))


def _make_detection(
    picture: Labelled, labels: Labels, source: Source, known: tuple[int, ...] | None, *, names: Sequence[str]
) -> DetectionSample | None:
    rows = picture.boxes
    if rows is None:
        return None
    own = labels[rows.labels] if len(labels) else rows.labels
    sides = rows.xyxy[:, 2:] - rows.xyxy[:, :2]
    scores = rows.scores if rows.scores is not None else np.ones(len(own), dtype=np.float32)
    unsure = source.min_score if source.unsure_score is None else source.unsure_score
    is_seen = (rows.crowd | (scores >= unsure)) & (own != _LEFT_OUT)
    is_vague = (
        (sides.min(axis=1, initial=np.inf) < MIN_SIDE_PX) | (own < 0) | ((scores < source.min_score) & ~rows.crowd)
    )
    is_object, is_crowd = is_seen & ~is_vague & ~rows.crowd, is_seen & ~is_vague & rows.crowd
    sample = DetectionSample(
        picture.image,
        rows.xyxy[is_object],
        own[is_object],
        rows.xyxy[is_crowd],
        own[is_crowd],
        scores=None if rows.scores is None else rows.scores[is_object],
        ignored=rows.xyxy[is_seen & is_vague],
        ignored_labels=np.maximum(own[is_seen & is_vague], ANY_CLASS),
        known=known,
    )
    if picture.shown is None or not source.image_labels:
        return sample
    shown, complete = labels[list(picture.shown)].tolist(), [names.index(name) for name in source.image_labels]
    return heed_image_labels(sample, shown, complete, len(names))


def _make_classification(
    picture: Labelled, labels: Labels, source: Source, known: tuple[int, ...] | None
) -> ClassificationSample | None:
    del source, known
    label = _NO_LABEL if picture.label is None else int(labels[picture.label])
    return ClassificationSample(picture.image, label) if label >= 0 else None
