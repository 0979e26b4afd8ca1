import torch

from tests.training.continual.stage import SIZE, make_config
from training.detection.cells import decode_cell_boxes, encode_cell_boxes
from training.detection.points import make_points
from training.detection.schemes import build_scheme

POINTS, STRIDES = make_points(SIZE, (8, 16, 32), torch.device("cpu"))


def test_cells_are_read_as_their_boxes_are_encoded() -> None:
    scheme = build_scheme(make_config())
    logits = torch.randn(1, 5 + 2, 2, 2, generator=torch.manual_seed(0)) - 1  # boxes small enough to lie inside
    logits[:, 2:4] -= 2
    found = scheme.read(logits, input_size=SIZE)
    _, encoded = encode_cell_boxes(decode_cell_boxes(logits[:, :4], 32)[0], 32)
    torch.testing.assert_close(found.boxes[0], encoded, atol=1e-4, rtol=1e-4)


def test_what_is_read_of_cells_multiplies_to_their_scores() -> None:
    scheme = build_scheme(make_config())
    logits = torch.randn(2, 5 + 2, 2, 2, generator=torch.manual_seed(0))
    found = scheme.read(logits, input_size=SIZE)
    assert found.classes is not None
    _, scores = scheme.decode(logits, input_size=SIZE)
    torch.testing.assert_close(found.objectness.sigmoid() * found.classes.softmax(dim=-1), scores)


def test_points_are_read_as_they_are_decoded_but_in_strides_and_without_bounds() -> None:
    scheme = build_scheme(make_config(head="branches"))
    logits = torch.randn(2, len(POINTS), 4 * 5 + 2, generator=torch.manual_seed(0))
    found = scheme.read(logits, input_size=SIZE)
    boxes, scores = scheme.decode(logits, input_size=SIZE)
    assert found.classes is None
    assert (found.boxes < 0).any()
    torch.testing.assert_close((found.boxes * STRIDES[:, None]).clamp(0, SIZE), boxes)
    torch.testing.assert_close(found.objectness.sigmoid(), scores)
