"""Lists of boxes and grids, from a tiny ONNX file to objects in the picture."""

from pathlib import Path

import numpy as np
import pytest

from service.pictures.imaging import UInt8Array
from tests.training.data.labelling.make_teachers import (
    SHARES,
    plain,
    write_boxes,
    write_grid,
    write_toml,
)
from training.data.labelling.answers import BoxAnswer
from training.data.labelling.network import Network


def ask_boxes(path: Path, image: UInt8Array) -> BoxAnswer:
    answer = Network(path).answer(image)
    assert isinstance(answer, BoxAnswer)
    return answer


# SHARES in a picture 40 wide and 20 high.

BOXES = [[4, 4, 20, 14], [20, 2, 36, 18]]


def to_format(form: str) -> list[tuple[float, float, float, float]]:
    rows = []
    for x1, y1, x2, y2 in SHARES:
        begin = (x1, y1) if form == "xywh" else ((x1 + x2) / 2, (y1 + y2) / 2)
        rows.append((x1, y1, x2, y2) if form == "xyxy" else (*begin, x2 - x1, y2 - y1))
    return rows


@pytest.mark.parametrize("form", ["xyxy", "cxcywh", "xywh"])
def test_boxes_of_every_format_come_out_in_pixels_of_the_picture(tmp_path: Path, form: str) -> None:
    output = f'kind = "boxes"\nformat = "{form}"\nunit = "share"'
    path = write_toml(write_boxes(tmp_path / "share.onnx", to_format(form)), output=output)
    answer = ask_boxes(path, plain((51, 204, 0)))
    np.testing.assert_allclose(answer.boxes, BOXES, atol=0.01)
    assert answer.labels.tolist() == [1, 1]
    assert answer.scores.tolist() == pytest.approx([0.8, 0.4])
    pixels = [[32 * number for number in row] for row in to_format(form)]
    path = write_toml(write_boxes(tmp_path / "input.onnx", pixels), output=output.replace("share", "input"))
    np.testing.assert_allclose(ask_boxes(path, plain((51, 204, 0))).boxes, BOXES, atol=0.01)


@pytest.mark.parametrize("order", ["wh", "hw"])
def test_a_network_that_wants_the_size_is_told_it(tmp_path: Path, order: str) -> None:
    path = write_boxes(tmp_path / "t.onnx", SHARES, is_told=True)
    given = 'size = 32\nfit = "stretch"\nscale = 1\nsize_name = "orig_target_sizes"\nname = "images"\n'
    given += f'size_order = "{order}"'
    write_toml(path, given=given, output='kind = "boxes"\nlabels = "labels"\nunit = "original"')
    answer = ask_boxes(path, plain((204, 51, 0)))
    if order == "wh":
        assert answer.boxes.tolist() == pytest.approx(np.array(BOXES))
        assert answer.labels.tolist() == [0, 1]
        assert answer.scores.tolist() == pytest.approx([0.8, 0.1])
    else:  # this one multiplies by width, height
        assert answer.boxes[0].tolist() == pytest.approx([2, 8, 10, 20])
    write_toml(
        path, given=given.replace("stretch", "letterbox"), output='kind = "boxes"\nlabels = "labels"\nunit = "input"'
    )
    answer = ask_boxes(path, plain((204, 51, 0), 32, 32))
    np.testing.assert_allclose(answer.boxes[0], [3.2, 6.4, 16, 22.4], atol=0.01)


@pytest.mark.parametrize("corner", ["centre", "top-left"])
def test_a_letterbox_is_undone_in_boxes(tmp_path: Path, corner: str) -> None:
    # The picture, 40 x 20, is 32 x 16 on the input.
    top = 8 if corner == "centre" else 0
    path = write_boxes(tmp_path / "t.onnx", [[8, top + 4, 16, top + 12], [-9, -9, 99, 99], [4, 27, 8, 31]])
    given = f'size = 32\nfit = "letterbox"\nscale = 1\nplace = "{corner}"\nfill = [255, 255, 255]'
    write_toml(path, given=given, output='kind = "boxes"\nunit = "input"')
    answer = ask_boxes(path, plain((255, 255, 255)))
    np.testing.assert_allclose(answer.boxes, [[10, 5, 20, 15], [0, 0, 40, 20]], atol=0.01)  # the last: padding alone


def test_background_wins_no_box_and_suppression_is_done_where_wanted(tmp_path: Path) -> None:
    path = write_boxes(tmp_path / "t.onnx", [[0, 0, 16, 16], [1, 0, 17, 16], [20, 20, 30, 30]])
    output = 'kind = "boxes"\nunit = "input"'
    write_toml(path, output=output, more="background = 0")
    answer = ask_boxes(path, plain((204, 102, 51), 32, 32))
    assert (Network(path).names, answer.labels.tolist()) == (("green", "blue"), [0, 0, 0])
    assert answer.scores.tolist() == pytest.approx([0.4, 0.2, 0.1333], abs=1e-3)
    write_toml(path, output=f"{output}\niou_threshold = 0.5", more="background = 0")
    assert ask_boxes(path, plain((204, 102, 51), 32, 32)).boxes[:, 0].tolist() == [0, 20]


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("sigmoid", [1 / (1 + np.exp(-0.8)), 1 / (1 + np.exp(-0.4))]), ("softmax", [0.5005, 0.4147])],
)
def test_logits_become_scores(tmp_path: Path, activation: str, expected: list[float]) -> None:
    path = write_boxes(tmp_path / "t.onnx", [[0, 0, 16, 16], [16, 16, 30, 30]])
    write_toml(path, output=f'kind = "boxes"\nunit = "input"\nactivation = "{activation}"')
    answer = ask_boxes(path, plain((204, 51, 0)))
    assert answer.scores.tolist() == pytest.approx(expected, abs=1e-3)


def test_grids_of_yolox_are_decoded_scored_and_suppressed(tmp_path: Path) -> None:
    # 32 px: 4 x 4 cells of 8 px, 2 x 2 of 16, one of 32. Rows: 0 to 15, 16 to 19, 20.
    cells = {
        5: (0.5, 0.25, np.log(2), np.log(1.5), 0.5, 0.1, 0.8, 0),  # cell (1, 1) of 8 px
        6: (-0.5, 0.25, np.log(2), np.log(1.5), 0.5, 0.1, 0.7, 0),  # the same box from its neighbour
        18: (0.5, 0.5, np.log(0.5), np.log(0.5), 1, 0, 0, 0.25),  # cell (0, 1) of 16 px
        20: (0.5, 0.5, 99, 99, 0, 1, 1, 1),  # sees nothing
    }
    path = write_toml(write_grid(tmp_path / "t.onnx", cells), output='kind = "yolox"')
    answer = ask_boxes(path, plain((9, 9, 9), 32, 64))  # stretched: twice as wide
    np.testing.assert_allclose(answer.boxes, [[8, 4, 40, 16], [8, 20, 24, 28]], atol=0.01)
    assert answer.labels.tolist() == [1, 2]
    assert answer.scores.tolist() == pytest.approx([0.4, 0.25])
    assert len(ask_boxes(path, plain((0, 0, 0))).boxes) == 0
