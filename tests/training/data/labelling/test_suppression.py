import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.ops import batched_nms, box_iou

from service.pictures.imaging import FloatArray
from training.data.labelling.suppression import compute_iou, suppress


def draw_boxes(count: int, seed: int) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (count, 2))
    boxes = np.hstack([corners, corners + rng.uniform(5, 40, (count, 2))]).astype(np.float32)
    return boxes, (rng.permutation(count) / count).astype(np.float32), rng.integers(0, 3, count)


@pytest.mark.parametrize("threshold", [0.1, 0.45, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_suppression_is_that_of_torchvision(seed: int, threshold: float) -> None:
    boxes, scores, labels = draw_boxes(80, seed)
    wanted = batched_nms(*(torch.from_numpy(part) for part in (boxes, scores, labels)), threshold)
    assert suppress(boxes, scores, labels, threshold).tolist() == wanted.tolist()


def test_overlap_is_that_of_torchvision_and_0_of_nothing() -> None:
    boxes, others = draw_boxes(20, 0)[0], draw_boxes(30, 1)[0]
    np.testing.assert_allclose(
        compute_iou(boxes, others), box_iou(torch.from_numpy(boxes), torch.from_numpy(others)), atol=1e-6
    )
    empty = np.array([[3, 3, 3, 9]], dtype=np.float32)
    assert compute_iou(empty, empty).tolist() == [[0]]
    assert suppress(empty[:0], empty[:0, 0], np.zeros(0, dtype=np.int64), 0.5).tolist() == []
