"""What an ImageNet network sees in each labelled box: pooled features of its crop, to teach detection by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from service.contract import LetterboxRule
from service.imaging import FloatArray, UInt8Array, letterbox
from training.data.loaders import TaskDataset
from training.data.transforms import Boxes
from training.inference import compute_weights_sha256
from training.models.backbone import WeightsError
from training.models.efficientnet_lite import load_efficientnet_lite
from training.teachers.networks import LITE_MEAN, LITE_SIZES, LITE_STD
from training.teachers.storage import Float16Array, compute_key, load_or_compute
from training.teachers.teacher import TeacherError

# To be raised when embeddings come to mean something else, so that no file of an earlier version is read.
_VERSION = "boxes 1"
_BATCH_SIZE = 16
# A little of what surrounds a box helps to tell what is in it (R-CNN, arXiv:1311.2524, app. A).
_ENLARGE = 1.2
# Crops of slivers and of specks show more than the box: this many times as long as wide, and pixels, at least.
_LONGEST_ASPECT = 2.0
_SHORTEST_PX = 16.0


class Embedder(Protocol):
    """A network that says what a picture looks like.

    Attributes:
        input_size: side of the squares that it is to be shown; in pixels.
        sha256: of all that its answers depend on.
    """

    input_size: int
    sha256: str

    def embed(self, images: Tensor) -> Tensor:
        """[N, S, S, 3] uint8 RGB, letterboxed, to [N, E], without gradients."""
        ...


class LiteEmbedder:
    """EfficientNet-Lite up to its pooled features: E is 1280."""

    def __init__(self, number: int, device: torch.device) -> None:
        """Load EfficientNet-Lite 0, 1 or 2.

        Raises:
            TeacherError: its packages are not installed.
        """
        try:
            network = load_efficientnet_lite(number)
        except WeightsError as error:
            raise TeacherError(str(error)) from error
        self.input_size = LITE_SIZES[number]
        self.sha256 = compute_weights_sha256(network.state_dict())
        self._network = network.eval().to(device)
        self._device = device

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """[N, S, S, 3] uint8 RGB to [N, 1280]."""
        pixels = (images.to(self._device).permute(0, 3, 1, 2).float() - LITE_MEAN) / LITE_STD
        features: Tensor = self._network.extract_features(pixels)
        return features.mean(dim=(2, 3))


def embed_boxes(embedder: Embedder, dataset: TaskDataset, *, folder: Path | None = None) -> Float16Array:
    """Look at every labelled box of a dataset, once.

    A `TaskDataset` is what a stage learns from, so no validation picture is ever looked at.

    Args:
        embedder: that looks at the crops.
        dataset: of detection.
        folder: keeps the embeddings on disk, under the network and the pixels and boxes that they belong to.

    Returns:
        [B, E], B boxes of the whole dataset: pictures in its order, and in each its boxes in theirs.

    Raises:
        TypeError: the dataset is of another task.
        ValueError: it has no box.
    """
    key = compute_key(dataset, _VERSION, embedder.sha256, str(embedder.input_size))

    def compute() -> list[Float16Array]:
        parts = [_embed(embedder, *dataset.load(row)) for row in range(len(dataset))]
        seen = [part for part in parts if len(part)]
        if not seen:
            raise ValueError("there is no box in the dataset to make an embedding of")
        return [np.concatenate(seen)]

    (embeddings,) = load_or_compute(folder, key, compute)
    return embeddings


def crop_box(image: UInt8Array, box: Sequence[float]) -> UInt8Array:
    """Cut a box out of its picture, with a little around it.

    Args:
        image: [H, W, 3] RGB.
        box: xyxy; in pixels of the picture.

    Returns:
        [h, w, 3] RGB, at least 1 x 1, never beyond the picture.
    """
    x1, y1, x2, y2 = box
    width, height = _ENLARGE * (x2 - x1), _ENLARGE * (y2 - y1)
    columns, rows = (
        _cut((start + end) / 2, max(side, other / _LONGEST_ASPECT, _SHORTEST_PX), length)
        for start, end, side, other, length in (
            (x1, x2, width, height, image.shape[1]),
            (y1, y2, height, width, image.shape[0]),
        )
    )
    return image[rows, columns]


def _cut(middle: float, side: float, length: int) -> slice:
    """The whole pixels that `side` pixels around the middle touch."""
    return slice(max(0, int(middle - side / 2)), min(length, int(np.ceil(middle + side / 2))))


def _embed(embedder: Embedder, image: UInt8Array, target: UInt8Array | Boxes | int) -> Float16Array:
    """[M, E] of one picture; [0, 0] if it has no box."""
    if not isinstance(target, Boxes):
        raise TypeError(f"embeddings are of boxes; wanted pictures of detection, got {type(target).__name__}")
    fill = LetterboxRule().fill
    boxes: FloatArray = target.boxes
    crops = [letterbox(crop_box(image, box), embedder.input_size, fill)[0] for box in boxes.tolist()]
    pieces = [
        embedder.embed(torch.from_numpy(np.stack(crops[start : start + _BATCH_SIZE]))).half().cpu().numpy()
        for start in range(0, len(crops), _BATCH_SIZE)
    ]
    return np.concatenate(pieces) if pieces else np.zeros((0, 0), dtype=np.float16)
