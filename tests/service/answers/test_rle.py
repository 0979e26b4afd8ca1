from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco

from service.answers.masks import compress_counts, encode_rle
from service.pictures.imaging import UInt8Array

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"  # pycocotools 2.0.11 with numpy 2
)


def decode(size: tuple[int, int], counts: str) -> NDArray[np.bool_]:
    decoded: NDArray[Any] = coco.decode({"size": list(size), "counts": counts.encode()})
    return decoded.astype(bool)


def make_blobs(height: int, width: int, cell: int, classes: int, seed: int) -> UInt8Array:
    """Rectangles of cells, as a network with a stride gives them."""
    grid = np.random.default_rng(seed).integers(0, classes, (-(-height // cell), -(-width // cell)), dtype=np.uint8)
    return np.repeat(np.repeat(grid, cell, axis=0), cell, axis=1)[:height, :width]


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    cell=st.integers(1, 9),
    classes=st.integers(1, 5),
    seed=st.integers(0, 999),
)
def test_pycocotools_reads_back_exactly_the_pixels(height: int, width: int, cell: int, classes: int, seed: int) -> None:
    class_ids = make_blobs(height, width, cell, classes, seed)
    encoded = encode_rle(class_ids)
    assert list(encoded) == np.unique(class_ids).tolist()
    for class_id, counts in encoded.items():
        np.testing.assert_array_equal(decode((height, width), counts), class_ids == class_id)


@pytest.mark.parametrize("class_id", [0, 7, 255])
def test_one_class_everywhere_is_two_runs(class_id: int) -> None:
    encoded = encode_rle(np.full((300, 500), class_id, dtype=np.uint8))
    assert decode((300, 500), encoded[class_id]).all()
    assert len(encoded) == 1


def test_the_text_is_that_of_pycocotools() -> None:
    class_ids = make_blobs(480, 640, 8, 3, seed=1)
    for class_id, counts in encode_rle(class_ids).items():
        theirs = coco.encode(np.asfortranarray(class_ids == class_id, dtype=np.uint8))
        assert counts == theirs["counts"].decode()


@settings(max_examples=100, deadline=None)
@given(counts=st.lists(st.integers(0, 2**28), min_size=1, max_size=12))
def test_long_and_short_runs_survive(counts: list[int]) -> None:
    text = compress_counts(np.array(counts, dtype=np.int64))
    # The format's own way back (maskApi.c, rleFrString), number by number.
    read: list[int] = []
    position = 0
    while position < len(text):
        value, bits, more = 0, 0, True
        while more:
            character = ord(text[position]) - 48
            value |= (character & 31) << bits
            more = bool(character & 32)
            position, bits = position + 1, bits + 5
            if not more and character & 16:
                value -= 1 << bits
        read.append(value + (read[-2] if len(read) > 2 else 0))
    assert read == counts
