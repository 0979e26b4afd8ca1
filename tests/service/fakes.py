"""Stand-ins for the model, a contract and a session of ten lines; and pictures, forms and keys to ask with."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.api.keys import hash_key
from service.engine.contract import CLASSES_OF, MODEL_TASKS, ModelContract
from service.pictures.imaging import UInt8Array

GOLDEN = Path(__file__).parents[2] / "service" / "models" / "golden"
SIZE, STRIDE = 32, 4
# In input pixels, of a 32 pixel square; the fourth place is not filled.
BOXES = np.array([[4, 4, 20, 12], [0, 0, 32, 32], [8, 8, 10, 10], [0, 0, 0, 0]], dtype=np.float32)
SCORES = np.array([0.9, 0.6, 0.2, 0.0], dtype=np.float32)
LABELS = np.array([1, 0, 3, 0], dtype=np.int64)
FOUND = 3


def make_contract(**changes: Any) -> ModelContract:  # noqa: ANN401 - fields of the contract
    """Three tasks, or those of `tasks`; the names of the others are empty then."""
    contract = ModelContract(
        version="tiny-0123456789ab",
        preset="tiny",
        git_commit="0" * 40,
        weights_sha256="ab" * 32,
        input_size=SIZE,
        mask_stride=STRIDE,
        detection_strides=(8, 16, 32),
        score_floor=0.01,
        iou_threshold=0.6,
        max_detections=len(SCORES),
        segmentation_classes=("background", "cat", "dog"),
        detection_classes=("person", "bicycle", "car", "kite"),
        classification_classes=("red", "green", "blue"),
    )
    served = changes.get("tasks", MODEL_TASKS)
    nameless = {names: () for task, names in CLASSES_OF.items() if task not in served}
    return dataclasses.replace(contract, **{**nameless, **changes})


class FakeSession:
    """Mask: cells whose red is over 127. Classes: softmax of the mean colour. Boxes: always the same.

    Gives the outputs of all tasks; an engine whose contract has fewer looks at no others.
    """

    def __init__(self) -> None:
        self.passes = 0

    def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
        self.passes += 1
        count = len(images)
        logits = images.mean(axis=(1, 2)) / 20
        probs = np.exp(logits - logits.max(axis=1, keepdims=True))
        return {
            "boxes": np.tile(BOXES, (count, 1, 1)),
            "scores": np.tile(SCORES, (count, 1)),
            "labels": np.tile(LABELS, (count, 1)),
            "num_detections": np.full(count, FOUND),
            "mask": (images[:, ::STRIDE, ::STRIDE, 0] > 127).astype(np.uint8),
            "class_probs": (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32),
        }


class BrokenSession(FakeSession):
    """Warms up, then fails for a reason that nobody outside should read."""

    def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
        if self.passes >= 2:
            raise RuntimeError("secret: /home/somebody/model.onnx")
        return super().run(images)


def make_picture(width: int = 48, height: int = 32, seed: int = 0) -> UInt8Array:
    """Smooth colours without symmetry, so that a turned or mirrored picture differs from itself."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encode(pixels: UInt8Array | Image.Image, kind: str = "PNG", **options: Any) -> bytes:  # noqa: ANN401 - Pillow's
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def make_form(**fields: bytes) -> tuple[bytes, str]:
    """Write a multipart body; returns it and its content type."""
    parts = [
        b'--xyz\r\nContent-Disposition: form-data; name="%s"; filename="a.jpg"\r\n\r\n%s\r\n' % (name.encode(), value)
        for name, value in fields.items()
    ]
    return b"".join(parts) + b"--xyz--\r\n", "multipart/form-data; boundary=xyz"


def write_keys(path: Path, **keys: str) -> Path:
    """Write a key file, for its owner alone: the hash of each key under its id."""
    path.touch(mode=0o600)
    path.write_text("".join(f"{name} {hash_key(key)}\n" for name, key in keys.items()))
    return path
