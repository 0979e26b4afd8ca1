"""Where the official releases come from, and what lies where in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from training.config import Task


class PrepareError(ValueError):
    """The sets cannot be made; the sentence says what came, what was wanted, and where to look."""


@dataclass(frozen=True, slots=True)
class Part:
    """One archive of a release, and the folder that it unpacks to.

    Attributes:
        folder: the archive's top folders; every path in a part begins with them.
        archive: the official file name.
        url: where --download gets it.
        md5: as torchvision 0.26 knows it; None where nobody publishes one, so that only the size can be compared.
    """

    folder: str
    archive: str
    url: str
    md5: str | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """One official release: its parts, and how they look once unpacked."""

    title: str
    parts: tuple[Part, ...]
    layout: str


# Addresses and checksums: torchvision.datasets.voc and .imagenette; cocodataset.org/#download has no checksums.
_VOC_URL = "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
_COCO_URL = "http://images.cocodataset.org"
_IMAGENETTE_URL = "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz"

RELEASES: Final[Mapping[Task, Release]] = {
    Task.SEGMENTATION: Release(
        "PASCAL VOC 2012",
        (Part("VOCdevkit/VOC2012", "VOCtrainval_11-May-2012.tar", _VOC_URL, "6cd6e144f989b92b3379bac3b3de84fd"),),
        "VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation/{train,val}.txt}",
    ),
    Task.DETECTION: Release(
        "COCO 2017",
        (
            Part(
                "annotations", "annotations_trainval2017.zip", f"{_COCO_URL}/annotations/annotations_trainval2017.zip"
            ),
            Part("train2017", "train2017.zip", f"{_COCO_URL}/zips/train2017.zip"),
            Part("val2017", "val2017.zip", f"{_COCO_URL}/zips/val2017.zip"),
        ),
        "annotations/instances_{train,val}2017.json, train2017/*.jpg, val2017/*.jpg",
    ),
    Task.CLASSIFICATION: Release(
        "Imagenette v2 160 px",
        (Part("imagenette2-160", "imagenette2-160.tgz", _IMAGENETTE_URL, "e793b78cc4c9e9a4ccc0c1155377a412"),),
        "imagenette2-160/{train,val}/<wnid>/*.JPEG",
    ),
}


def describe_layout(release: Release) -> str:
    """Say what a release looks like on disk, unpacked or not; one line."""
    return f"{release.title} is {release.layout}, or {' + '.join(part.archive for part in release.parts)}"
