from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.data.labelling.make_teachers import (
    COLOURS,
    DETECTOR,
    SHARES,
    write_boxes,
    write_cells,
    write_classifier,
    write_toml,
)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures of one colour each, with three endings, in two folders; 40 wide, 30 high."""
    folder = tmp_path / "pictures"
    for (name, colour), ending in zip(COLOURS.items(), ("jpg", "JPEG", "webp"), strict=True):
        path = folder / f"{name}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), colour).save(path, quality=100)
    return folder


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    path = write_boxes(tmp_path / "detector.onnx", SHARES)
    write_toml(path, output=DETECTOR)
    return path


@pytest.fixture
def masker(tmp_path: Path) -> Path:
    return write_toml(write_cells(tmp_path / "masker.onnx"), output='kind = "mask-logits"\nactivation = "none"')


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    path = write_classifier(tmp_path / "classifier.onnx")
    return write_toml(path, output='kind = "class-logits"\nactivation = "none"')


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Twenty-four pictures."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(24):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / f"{number:02d}.png")
    return folder
