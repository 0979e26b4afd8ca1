"""Which pictures go into which set, so that no picture is on two sides; whatever is left out is said."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from training.config import Task
from training.data.prepare.official import SPLITS, OfficialSet, Picture
from training.data.prepare.pixels import measure
from training.data.prepare.releases import PrepareError
from training.data.prepare.sampling import Drawing, Quota, draw, sampling_key

_MAX_NAMED = 20  # pictures left out for one reason


@dataclass(frozen=True, slots=True)
class Selection:
    """What was drawn.

    Attributes:
        pictures: by task and split, sorted by id.
        counts: pictures that show a class, by task and split, then class.
        notices: shortages and pictures left out; one sentence each.
    """

    pictures: Mapping[tuple[Task, str], Sequence[Picture]]
    counts: Mapping[tuple[Task, str], Mapping[str, int]]
    notices: Sequence[str]


def select_pictures(
    sets: Sequence[OfficialSet], quotas: Mapping[str, Quota], seed: int, *, keep_all: bool = False
) -> Selection:
    """Draw val for all tasks, then train: a picture that two sides want stays in val.

    Args:
        sets: one a task.
        quotas: by split.
        seed: another one draws other pictures.
        keep_all: take every picture instead, but those that would be on two sides.

    Raises:
        PrepareError: a picture is missing or cannot be decoded.
    """
    sides = _Sides()
    listings = {(o.task, split): {p.id: p for p in o.list_pictures(split)} for o in sets for split in SPLITS}
    pictures: dict[tuple[Task, str], Sequence[Picture]] = {}
    counts: dict[tuple[Task, str], Mapping[str, int]] = {}
    notices: list[str] = []
    for split in reversed(SPLITS):
        for official in sets:
            place, listed = f"{official.task} {split}", listings[official.task, split]
            if split == "train":
                sides.reserve(f"{official.task} val", listings[official.task, "val"])
            judge = partial(_accept, sides, place, official, listed)
            if keep_all:
                drawing = _take_all(listed, official.classes, judge)
            else:
                drawing = _draw(official, listed, quotas[split], seed, judge)
                notices += _name_shortages(place, drawing, quotas[split], len(official.classes))
            if not drawing.ids:
                raise PrepareError(f"{place}: the release has no picture of {', '.join(official.classes)} to draw")
            pictures[official.task, split] = [listed[picture_id] for picture_id in sorted(drawing.ids)]
            counts[official.task, split] = drawing.counts
    return Selection(pictures, counts, notices + sides.describe())


def _draw(
    official: OfficialSet, listed: Mapping[str, Picture], quota: Quota, seed: int, judge: Callable[[str], bool]
) -> Drawing:
    candidates = {picture.id: picture.classes for picture in listed.values() if picture.classes}
    return draw(candidates, official.classes, quota, partial(sampling_key, seed, official.task), judge)


def _take_all(listed: Mapping[str, Picture], classes: Sequence[str], judge: Callable[[str], bool]) -> Drawing:
    ids = tuple(picture_id for picture_id in listed if judge(picture_id))
    shown = Counter(label for picture_id in ids for label in listed[picture_id].classes)
    return Drawing(ids, {label: shown[label] for label in classes})


def _name_shortages(place: str, drawing: Drawing, quota: Quota, num_classes: int) -> list[str]:
    wanted = quota.share(num_classes)
    short = [f"{label} {count}" for label, count in drawing.counts.items() if count < wanted]
    notices = [f"{place}: the quota of {wanted} a class is not met: {', '.join(short)}"] if short else []
    if quota.total is not None and len(drawing.ids) < quota.total:
        notices.append(f"{place}: {len(drawing.ids)} of the {quota.total} pictures wanted, the release has no more")
    return notices


@dataclass(slots=True)
class _Sides:
    """Who has which picture, and what was left out for it; a side is a task and a split."""

    owner_of_id: dict[str, str] = field(default_factory=dict)
    owner_of_digest: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def reserve(self, place: str, ids: Iterable[str]) -> None:
        """Keep ids for one side, drawn or not."""
        for picture_id in ids:
            self.owner_of_id.setdefault(picture_id, place)

    def claim(self, place: str, picture_id: str, digest: str) -> bool:
        """Take a picture for a side, unless another one has it."""
        owners = self.owner_of_id.get(picture_id, place), self.owner_of_digest.get(digest, place)
        for owner in owners:
            if owner != place:
                self.leave_out(f"{place}: left out, because {owner} has the same picture", picture_id)
                return False
        self.owner_of_id[picture_id] = self.owner_of_digest[digest] = place
        return True

    def leave_out(self, reason: str, picture_id: str) -> None:
        """Remember a picture that was not taken."""
        self.left_out[reason].append(picture_id)

    def describe(self) -> list[str]:
        """One sentence a reason, with the first ids."""
        return [f"{reason}: {_enumerate(sorted(ids))}" for reason, ids in self.left_out.items()]


def _enumerate(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _MAX_NAMED} more" if len(ids) > _MAX_NAMED else ""
    return f"{', '.join(ids[:_MAX_NAMED])}{more}"


def _accept(sides: _Sides, place: str, official: OfficialSet, listed: Mapping[str, Picture], picture_id: str) -> bool:
    picture = listed[picture_id]
    body = official.files.read(picture.source)
    size = measure(body, picture.source)
    if picture.annotated_size not in {None, size}:
        sides.leave_out(f"{place}: left out, because the annotation was made for another size", picture_id)
        return False
    return sides.claim(place, picture_id, hashlib.sha256(body).hexdigest())
