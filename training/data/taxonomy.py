"""Which classes each task knows: a value that is read from the data and goes with everything that is made of it.

A name's position is its label. Here are also the official names of the sets that the shipped presets are tuned on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from training.options.base import Task

# Value of a mask where the annotators drew no line: borders and objects too hard to tell.
VOID: Final = 255
# Label of a box that is ignored whatever class is asked for.
ANY_CLASS: Final = -1


class TaxonomyError(ValueError):
    """Two things that are to go together know other classes; the sentence shows the difference."""


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """Class names per task, by label, and which class of one task is the same thing as one of another.

    Attributes:
        segmentation: names by mask value, background first; empty where nothing is segmented.
        detection: names by label; empty where nothing is detected.
        classification: names by label; empty where nothing is classified.
        same: pairs (name of a segmentation class, name of the detection class that is the same thing); two equal names
            are the same thing only if they are a pair.
    """

    segmentation: tuple[str, ...] = ()
    detection: tuple[str, ...] = ()
    classification: tuple[str, ...] = ()
    same: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for task in Task:
            names = self.names(task)
            if len(set(names)) != len(names):
                double = next(name for name in names if names.count(name) > 1)
                raise TaxonomyError(f"{task}: two classes are called {double!r}; wanted a name for each")
        for one, other in self.same:
            if one not in self.segmentation or other not in self.detection:
                raise TaxonomyError(
                    f"{one!r} of segmentation is to be {other!r} of detection; one of them is no class there"
                )

    def names(self, task: Task) -> tuple[str, ...]:
        """The names of one task by label; empty where there is nothing of it."""
        names: tuple[str, ...] = getattr(self, task.value)
        return names

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that have classes, in the order of `Task`."""
        return tuple(task for task in Task if self.names(task))

    @property
    def num_classes(self) -> dict[Task, int]:
        """How many classes each of the tasks has that there are."""
        return {task: len(self.names(task)) for task in self.tasks}

    def keep(self, tasks: Collection[Task]) -> Taxonomy:
        """The classes of these tasks alone."""
        names = {task.value: self.names(task) if task in tasks else () for task in Task}
        both = {Task.SEGMENTATION, Task.DETECTION} <= set(tasks)
        return Taxonomy(**names, same=self.same if both else ())

    def segmentation_as_detection(self) -> tuple[int | None, ...]:
        """Detection's label of each segmentation class, by its mask value; None for those that it does not have."""
        twins = dict(self.same)
        return tuple(self.detection.index(twins[name]) if name in twins else None for name in self.segmentation)

    def match(self, task: Task, names: Sequence[str]) -> tuple[int, ...]:
        """Find a task's classes among the names of somebody else, who may know more and in another order.

        Case and underscores do not count; a class of masks is also found under the name of its twin in boxes, and the
        other way round.

        Args:
            task: whose classes are wanted.
            names: by position.

        Returns:
            The position in `names` of each class, by label.

        Raises:
            TaxonomyError: a class is not there, or twice.
        """
        twins = {one: other for pair in self.same for one, other in (pair, pair[::-1])}
        places: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            places.setdefault(normalise_name(name), []).append(place)
        found = {
            name: places.get(normalise_name(name)) or places.get(normalise_name(twins.get(name, name)), [])
            for name in self.names(task)
        }
        if lacking := [name for name, at in found.items() if not at]:
            raise TaxonomyError(f"of {len(names)} classes none is {_list(lacking)}")
        if double := [name for name, at in found.items() if len(at) > 1]:
            raise TaxonomyError(f"of {len(names)} classes more than one is {_list(double)}")
        return tuple(at[0] for at in found.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON and checkpoints hold them."""
        return {**{task.value: list(self.names(task)) for task in Task}, "same": [list(pair) for pair in self.same]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Taxonomy:
        """Read back what `to_dict` gave.

        Raises:
            TaxonomyError: they are no such values.
        """
        try:
            names = {task.value: tuple(map(str, values[task.value])) for task in Task}
            return cls(**names, same=tuple((str(one), str(other)) for one, other in values["same"]))
        except (KeyError, TypeError, ValueError) as error:
            raise TaxonomyError(f"the classes cannot be read: {error!r}") from error

    def describe_difference(self, other: Taxonomy, *, mine: str = "the checkpoint", theirs: str = "the data") -> str:
        """Say in one sentence how the other's classes differ from these; empty if they do not.

        Args:
            other: classes to compare with.
            mine: what these classes are of.
            theirs: what the other ones are of.
        """
        parts = [part for task in Task for part in self._differences(task, other, mine, theirs)]
        if not parts and set(self.same) != set(other.same):
            for pairs, here, there in ((self.same, mine, theirs), (other.same, theirs, mine)):
                lacking = sorted(set(pairs) - set(self.same if pairs is other.same else other.same))
                parts += [
                    f"{one!r} of segmentation is {two!r} of detection in {here}, not in {there}" for one, two in lacking
                ]
        return "; ".join(parts)

    def _differences(self, task: Task, other: Taxonomy, mine: str, theirs: str) -> Iterator[str]:
        here, there = self.names(task), other.names(task)
        if here == there:
            return
        if not here or not there:
            owner, lacking = (mine, theirs) if here else (theirs, mine)
            yield f"{task}: {owner} has {len(here or there)} classes, {lacking} none"
            return
        if len(here) != len(there):
            for names, others, owner in ((here, there, mine), (there, here, theirs)):
                if alone := [name for name in names if name not in others]:
                    yield f"{task}: only {owner} has {_list(alone)}"
        moved = [label for label, (one, two) in enumerate(zip(here, there, strict=False)) if one != two]
        if moved:
            label = moved[0]
            more = f" ({len(moved)} differ)" if len(moved) > 1 else ""
            yield f"{task}: class {label} is {here[label]!r} in {mine}, {there[label]!r} in {theirs}{more}"


def require_same_classes(
    known: Taxonomy, data: Taxonomy, tasks: Collection[Task], *, owner: str, mine: str, advice: str, pairs: bool = False
) -> None:
    """Refuse what was made with other classes than the data has.

    Args:
        known: classes of what was made.
        data: classes of the data.
        tasks: that are compared; what the other tasks have does not count.
        owner: what was made, for the beginning of the sentence.
        mine: the same, for its middle.
        advice: what to do, for its end.
        pairs: also compare which classes are the same thing.

    Raises:
        TaxonomyError: a class differs; the sentence shows which.
    """
    one, two = known.keep(tasks), data.keep(tasks)
    if not pairs:
        one, two = (Taxonomy(each.segmentation, each.detection, each.classification) for each in (one, two))
    if difference := one.describe_difference(two, mine=mine):
        raise TaxonomyError(f"{owner} was made with other classes than the data has: {difference}; {advice}")


def load_imagenet_names() -> tuple[str, ...]:
    """The thousand names of ILSVRC 2012 in its order, as all of torchvision's weights list them."""
    return tuple((resources.files("training.data") / "imagenet.txt").read_text(encoding="utf-8").splitlines())


def normalise_name(name: str) -> str:
    """Give a name as it is compared with somebody else's: case and underscores do not count."""
    return " ".join(name.casefold().replace("_", " ").split())


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")  # noqa: PLR2004 - the rest of them


# VOC 2012 development kit, section 3 (VOCinit.m); 0 is background, as in the palette masks.
VOC: Final = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

# COCO 2017, `categories` of instances_val2017.json; ids 1..90 have gaps there, so the order counts and the id does not.
# fmt: off
COCO: Final = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear",
    "hair drier", "toothbrush",
)
# fmt: on

_OTHER_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
# Every class of VOC and the one of COCO that is the same thing; background is none.
VOC_SAME_AS_COCO: Final = tuple((name, _OTHER_NAMES.get(name, name)) for name in VOC[1:])

# Imagenette v2 (github.com/fastai/imagenette): WordNet id -> English, in the order of the ids.
IMAGENETTE: Final = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}

# Of the three mini sets; checkpoints that do not name their classes were trained with these.
MINI: Final = Taxonomy(VOC, COCO, tuple(IMAGENETTE.values()), VOC_SAME_AS_COCO)
