"""Boxes as YOLO's tools read them: a text file a picture, and the names of the classes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from service.commands.local import WRONG_USAGE, RunEnded
from service.commands.results import Record
from service.words import make_printable

_DECIMALS = 6
_HEAD = "# The pictures belong into images/, as labels/ has their boxes; without val: some are yours to hold out.\n"


def plan_labels(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Where the boxes of each picture go: below `labels/`, as the picture lies below the folder that all have above.

    Args:
        folder: that gets `labels/`; it may not have files there yet, which somebody may have drawn by hand.
        names: of the pictures.

    Raises:
        RunEnded: two pictures would share a file, or there are some already.
    """
    labels = folder / "labels"
    if labels.exists() and any(labels.iterdir()):
        raise RunEnded(f"{labels} has files already, which are not written over; name another folder", WRONG_USAGE)
    paths = {name: Path(os.path.abspath(name)) for name in names}  # noqa: PTH100 - resolve would follow links
    above = os.path.commonpath([path.parent for path in paths.values()]) if paths else ""
    places: dict[Path, str] = {}
    for name, path in paths.items():
        place = labels / path.relative_to(above).with_suffix(".txt")
        if place in places:
            raise RunEnded(f"{places[place]} and {name} would both be {place}; give one another name", WRONG_USAGE)
        places[place] = name
    return {name: place for place, name in places.items()}


def write_labels(
    folder: Path, records: Iterable[Record], places: Mapping[str, Path], classes: Sequence[str], *, scores: bool
) -> None:
    """Write a line `class x_center y_center width height` for each box, in shares of the picture, best first.

    A picture without boxes has an empty file, one without an answer has none.

    Args:
        folder: that gets `classes.txt` and `data.yaml`, too.
        records: of the run.
        places: of the pictures' files, see `plan_labels`.
        classes: names by class id.
        scores: whether a line has a sixth column, the score.
    """
    for record in records:
        if "error" in record:
            continue
        width, height = record["image"]["width"], record["image"]["height"]
        lines = []
        for one in record["detections"]:
            x1, y1, x2, y2 = one["box"]
            shares = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
            numbers = [*shares, one["score"]] if scores else shares
            lines.append(" ".join([str(one["label_id"]), *(f"{number:.{_DECIMALS}f}" for number in numbers)]))
        place = places[record["file"]]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    folder.mkdir(parents=True, exist_ok=True)
    names = list(map(make_printable, classes))
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    inner = {place.relative_to(folder / "labels").parts[0] for place in places.values()}
    splits: dict[str, object] = {split: f"images/{split}" for split in ("train", "val", "test") if split in inner}
    listing = {**(splits or {"train": "images"}), "nc": len(names), "names": dict(enumerate(names))}
    text = yaml.safe_dump(listing, allow_unicode=True, sort_keys=False)
    (folder / "data.yaml").write_text(f"{_HEAD}{text}", encoding="utf-8")
