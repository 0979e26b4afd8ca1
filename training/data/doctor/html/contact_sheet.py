"""A few pictures of a set with their annotations drawn in: people see a wrong box sooner than they read one."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from service.pictures.imaging import UInt8Array
from training.data.datasets import DataError, load_image, read_mask
from training.data.doctor.findings import Picture, SetSummary
from training.data.doctor.html.drawing import Colour, class_name, draw_boxes, make_colours, shrink, tint
from training.data.taxonomy import VOC, VOID

SAMPLES: Final = 9
FRAME_PX: Final = (560, 420)  # every picture is scaled to fit, so that the lines and names in it have one size

_FAULTY_SAMPLES = 3  # enough to see a fault, and six are left to see what the set looks like
# Masks have to be read before their classes are known: more candidates would cost seconds.
_CANDIDATES, _FAULTY_CANDIDATES = 150, 50


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture of the contact sheet.

    Attributes:
        picture: where it comes from.
        classes: what is annotated, and how often (boxes) or on how many pixels (masks), the most first.
        pixels: [H, W, 3] RGB, 0..255, annotations drawn in; None where the picture cannot be decoded.
        note: what kept something from being drawn; empty if nothing did.
    """

    picture: Picture
    classes: tuple[tuple[str, int], ...]
    pixels: UInt8Array | None
    note: str = ""


def make_samples(summary: SetSummary, codes: Mapping[Path, Sequence[str]]) -> tuple[Sample, ...]:
    """Draw up to nine pictures of a set: first some with faults, then as many classes as there is room for.

    The choice depends on names alone (SHA-256), never on chance or on the order of files.

    Args:
        summary: the set.
        codes: of the findings that name a picture, by its path.
    """
    colours = colours_of_set(summary)
    names = names_of_set(summary)
    return tuple(draw_sample(picture, colours, names) for picture in _choose(summary.pictures, codes, names))


def names_of_set(summary: SetSummary) -> Sequence[str]:
    """The classes of the set's masks, by the values that its pictures give them; VOC's where nothing names them."""
    return summary.mask_names or VOC


def colours_of_set(summary: SetSummary) -> Mapping[str, Colour]:
    """One colour for each class name of the set, the same in all its pictures."""
    drawn = {name for picture in summary.pictures for name, _, _ in picture.boxes}
    counted = {name for split in summary.splits for name in split.class_counts}
    return make_colours(names_of_set(summary) if summary.task == "segmentation" else sorted(drawn | counted))


def draw_sample(picture: Picture, colours: Mapping[str, Colour], names: Sequence[str] = VOC) -> Sample:
    """Decode a picture, scale it into `FRAME_PX`, and draw its mask and boxes; never raises on bad data.

    Args:
        picture: boxes in pixels of its upright picture.
        colours: by class name; a name that is not among them is drawn in grey.
        names: of mask values.
    """
    classes = _count_classes(picture, names)
    try:
        image = load_image(picture.path)
    except DataError:
        return Sample(picture, classes, None, "the picture cannot be decoded")
    pixels, note = shrink(image, FRAME_PX), ""
    if picture.mask is not None:
        mask = _read_any_mask(picture)
        if mask is None:
            note = "the mask is no readable map of class ids"
        else:
            if mask.shape != image.shape[:2]:
                note = f"the mask is {mask.shape[1]} x {mask.shape[0]}, stretched here"
            pixels = tint(pixels, mask, names, colours)
    if picture.boxes:
        pixels = draw_boxes(pixels, picture.boxes, colours, image)
    return Sample(picture, classes, pixels, note)


class _Candidate(NamedTuple):
    picture: Picture
    digest: bytes
    faults: frozenset[str]
    classes: frozenset[str]


def _choose(
    pictures: Sequence[Picture], codes: Mapping[Path, Sequence[str]], names: Sequence[str]
) -> Iterator[Picture]:
    left = _make_candidates(pictures, codes, names)
    splits: Counter[str] = Counter()
    seen: set[str] = set()
    for turn in range(min(SAMPLES, len(left))):
        wants_fault = turn < _FAULTY_SAMPLES
        best = min(
            left,
            key=lambda each: (
                bool(each.faults) != wants_fault,
                -len(each.faults - seen) if wants_fault else 0,
                splits[each.picture.split],
                len(each.picture.boxes) if wants_fault else 0,  # the fault is easier to see among few
                # Two new classes are as good as ten: those pictures are cluttered.
                -min(2, len(each.classes - seen)),
                each.digest,
            ),
        )
        left.remove(best)
        splits[best.picture.split] += 1
        seen |= best.classes | best.faults
        yield best.picture


def _make_candidates(
    pictures: Sequence[Picture], codes: Mapping[Path, Sequence[str]], names: Sequence[str]
) -> list[_Candidate]:
    groups: dict[bool, list[tuple[bytes, str, Picture, frozenset[str]]]] = {True: [], False: []}
    for picture in pictures:
        faults = frozenset(codes.get(picture.path, ()))
        digest = hashlib.sha256(f"{picture.split}/{picture.path.name}".encode(errors="surrogateescape")).digest()
        groups[bool(faults)].append((digest, str(picture.path), picture, faults))
    return [
        _Candidate(picture, digest, faults, frozenset(name for name, _ in _count_classes(picture, names)))
        for has_faults, most in ((True, _FAULTY_CANDIDATES), (False, _CANDIDATES))
        for digest, _, picture, faults in heapq.nsmallest(most, groups[has_faults], key=lambda entry: entry[:2])
    ]


def _count_classes(picture: Picture, names: Sequence[str]) -> tuple[tuple[str, int], ...]:
    if picture.label is not None:
        return ((picture.label, 1),)
    if picture.mask is None:
        counts = Counter(name for name, _, _ in picture.boxes)
    else:
        mask = _read_any_mask(picture)
        if mask is None:
            return ()
        pixels = np.bincount(mask.ravel(), minlength=256)
        counts = Counter({class_name(value, names): int(pixels[value]) for value in range(1, VOID) if pixels[value]})
    return tuple(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def _read_any_mask(picture: Picture) -> UInt8Array | None:
    """Class ids, whether they are classes or not; None where there are none to read."""
    if picture.mask is None:
        return None
    # A value that is no class keeps its number, unless a class has that.
    values = picture.values and [label if label >= 0 else value for value, label in enumerate(picture.values)]
    try:
        return read_mask(picture.mask, VOID, values)
    except (DataError, Image.DecompressionBombError):
        return None
