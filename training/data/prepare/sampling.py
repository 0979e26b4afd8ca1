"""Which pictures are drawn: by hash and rarest class first, so neither platform nor file order has a say."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quota:
    """How many pictures to draw for a split; at least one of the two is given.

    Attributes:
        per_class: pictures that show a class, for each class; without it, `total` shared out evenly.
        total: pictures in all; without it, drawing ends when every class has its share.
    """

    per_class: int | None
    total: int | None

    def share(self, num_classes: int) -> int:
        """Pictures wanted for each class; at least 1."""
        return self.per_class or max(1, (self.total or 0) // num_classes)


@dataclass(frozen=True, slots=True)
class Drawing:
    """What was drawn.

    Attributes:
        ids: of the pictures, in the order they were drawn in.
        counts: pictures drawn that show a class, for each class.
    """

    ids: tuple[str, ...]
    counts: Mapping[str, int]


def sampling_key(seed: int, task: str, class_name: str, picture_id: str) -> str:
    """Place of a picture in its class's queue: hexadecimal SHA-256, the smallest is drawn first."""
    return hashlib.sha256(f"{seed}|{task}|{class_name}|{picture_id}".encode()).hexdigest()


def draw(
    candidates: Mapping[str, Collection[str]],
    classes: Sequence[str],
    quota: Quota,
    key: Callable[[str, str], str],
    accept: Callable[[str], bool],
) -> Drawing:
    """Draw pictures until each class has its share, the rarest class first, then top up to the total.

    A picture counts for every class that it shows, and is drawn once. Each picture of the top-up goes to the class
    that has the fewest so far.

    Args:
        candidates: the classes that a picture shows, by its id.
        classes: the classes to fill; of equally rare ones the first goes first.
        quota: how many.
        key: sorts the candidates of a class; called with class and id.
        accept: asked once before a picture is drawn; another one takes the place of a refused one.
    """
    queues = {name: _queue(name, candidates, key) for name in classes}
    rarest_first = sorted(classes, key=lambda name: len(queues[name]))
    ids: dict[str, bool] = {}  # drawn or refused
    counts = dict.fromkeys(classes, 0)

    def is_full() -> bool:
        return quota.total is not None and sum(ids.values()) >= quota.total

    def draw_one(name: str) -> bool:
        while queues[name]:
            picture_id = queues[name].pop()
            if picture_id not in ids:
                ids[picture_id] = accept(picture_id)
                if ids[picture_id]:
                    for shown in candidates[picture_id]:
                        counts[shown] += 1
                    return True
        return False

    for name in rarest_first:
        while counts[name] < quota.share(len(classes)) and not is_full() and draw_one(name):
            pass
    while quota.total is not None and not is_full() and (waiting := [name for name in rarest_first if queues[name]]):
        draw_one(min(waiting, key=counts.__getitem__))
    return Drawing(tuple(picture_id for picture_id, drawn in ids.items() if drawn), counts)


def _queue(name: str, candidates: Mapping[str, Collection[str]], key: Callable[[str, str], str]) -> list[str]:
    """Candidates of a class, the first to be drawn last."""
    showing = [picture_id for picture_id, shown in candidates.items() if name in shown]
    return sorted(showing, key=lambda picture_id: key(name, picture_id), reverse=True)
