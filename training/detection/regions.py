"""Where a point without a box is no background: in regions that are ignored, and where a class is unknown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.data.batches import BoxTargets
from training.detection.points import Points


def find_points_in(regions: Tensor, points: Points) -> Tensor:
    """Say which points would stand for an object of the size and at the place of each region.

    Those that lie in it, and where it is smaller than their cell, the one whose cell holds its centre: the point that
    a small object would be given has to be left alone, too.

    Args:
        regions: [K, 4] xyxy; in input pixels.
        points: of one level or more.

    Returns:
        [K, A] true for those.
    """
    half_strides = points.strides / 2
    inside = points.xy.new_ones((len(regions), len(half_strides)), dtype=torch.bool)
    # Axis by axis: with the two of them innermost it takes ten times as long.
    for axis in (0, 1):
        starts, ends = regions[:, axis, None], regions[:, axis + 2, None]
        reach = torch.maximum((ends - starts) / 2, half_strides)
        inside &= (points.xy[:, axis] - (starts + ends) / 2).abs() <= reach
    return inside


def find_ignored(targets: Sequence[BoxTargets], points: Points, num_classes: int) -> Tensor | None:
    """[N, A, D] whether a point lies in a region that is no background of a class; None where there is no region."""
    regions, pictures = _list_all([target.ignored for target in targets])
    if not len(regions):
        return None
    labels = torch.cat([target.ignored_labels for target in targets])
    ignored = labels.new_zeros((len(targets), len(points.xy), num_classes), dtype=torch.bool)
    region, point = find_points_in(regions, points).nonzero(as_tuple=True)
    picture, label = pictures[region], labels[region]
    whole = label < 0  # `ANY_CLASS`
    ignored[picture[whole], point[whole]] = True
    ignored[picture[~whole], point[~whole], label[~whole]] = True
    return ignored


def find_unknown(targets: Sequence[BoxTargets], points: Points) -> Tensor | None:
    """[N, A, D] whether a point lies where a class was not looked for; None where all classes were."""
    areas, pictures = _list_all([target.areas for target in targets])
    if not len(areas):
        return None
    rows = torch.cat([target.unknown for target in targets if len(target.areas)])
    unknown = rows.new_zeros((len(targets), len(points.xy), rows.shape[1]))
    # Half open, so that a point on the border of two areas lies in one of them.
    inside = (areas[:, None, :2] <= points.xy) & (points.xy < areas[:, None, 2:])
    area, point = inside.all(dim=-1).nonzero(as_tuple=True)
    unknown[pictures[area], point] = rows[area]
    return unknown


def _list_all(per_picture: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The rows of all pictures one after another, and the picture of each."""
    rows = torch.cat(list(per_picture))
    counts = torch.tensor([len(each) for each in per_picture], device=rows.device)
    return rows, torch.arange(len(per_picture), device=rows.device).repeat_interleave(counts)
