"""Each kind of output, from a tiny ONNX file to what is said about the picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from service.pictures.imaging import UInt8Array
from tests.training.data.labelling.make_teachers import (
    CLASSES,
    FLOAT,
    UINT8,
    write_boxes,
    write_cell_ids,
    write_cells,
    write_classifier,
    write_graph,
    write_grid,
    write_toml,
)
from training.data.labelling.answers import BoxAnswer, ClassAnswer, MaskAnswer
from training.data.labelling.faults import LabellingError
from training.data.labelling.network import Network, place
from training.data.labelling.teacher_file import Input

LETTERBOX = 'size = [32, 48]\nfit = "letterbox"\nscale = 1\nfill = [255, 0, 0]\n'


def plain(colour: tuple[int, int, int], height: int = 20, width: int = 40) -> UInt8Array:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def halves(left: tuple[int, int, int], right: tuple[int, int, int], height: int = 32, width: int = 64) -> UInt8Array:
    image = plain(left, height, width)
    image[:, width // 2 :] = right
    return image


def ask_boxes(path: Path, image: UInt8Array) -> BoxAnswer:
    answer = Network(path).answer(image)
    assert isinstance(answer, BoxAnswer)
    return answer


def ask_mask(path: Path, image: UInt8Array) -> MaskAnswer:
    answer = Network(path).answer(image)
    assert isinstance(answer, MaskAnswer)
    return answer


def ask_classes(path: Path, image: UInt8Array) -> list[float]:
    answer = Network(path).answer(image)
    assert isinstance(answer, ClassAnswer)
    return [float(prob) for prob in answer.probs]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('size = 32\nfit = "stretch"\nscale = 1', [1, 0.2, 0]),
        ('size = 32\nfit = "stretch"\nscale = 1\ncolour = "bgr"', [0, 0.2, 1]),
        ('size = 32\nfit = "stretch"\nscale = 255\nmean = [155, 1, 0]\nstd = [200, 100, 1]', [0.5, 0.5, 0]),
        ('size = 32\nfit = "stretch"\nscale = 1\nmean = [0.5, 0, 0]\ncolour = "bgr"\nstd = [-1, 1, 1]', None),
        ('size = 32\nfit = "letterbox"\nscale = 1\nfill = [0, 51, 255]', [0.5, 0.2, 0.5]),
    ],
)
def test_the_network_sees_the_picture_as_its_description_says(
    tmp_path: Path, given: str, expected: list[float] | None
) -> None:
    path = write_toml(
        write_classifier(tmp_path / "t.onnx"), given=given, output='kind = "class-logits"\nactivation = "none"'
    )
    if expected is None:
        with pytest.raises(LabellingError, match=r"t\.toml: input\.std\.0: Input should be greater than 0"):
            Network(path)
    else:
        assert ask_classes(path, plain((255, 51, 0))) == pytest.approx(expected, abs=1e-6)


def test_channels_stand_last_where_it_says_so_and_bytes_stay_bytes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
    ]
    path = write_graph(
        tmp_path / "t.onnx",
        nodes,
        {"images": (UINT8, [1, 32, 32, 3])},
        {"means": (FLOAT, 2)},
        {"axes": np.array([1, 2])},
    )
    given = 'size = 32\nfit = "stretch"\nscale = 255\nlayout = "nhwc"'
    toml = write_toml(path, given=given, output='kind = "class-logits"')
    assert ask_classes(toml, plain((3, 2, 1))) == pytest.approx([0.665, 0.245, 0.090], abs=1e-3)  # their soft-max
    toml = write_toml(path, given=given + "\nmean = [1, 1, 1]", output='kind = "class-logits"')
    with pytest.raises(LabellingError, match=r"images is bytes; \[input\] wants scale = 255 and no mean"):
        Network(toml)


def test_positions_with_one_name_add_up_and_background_is_left_out(tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "t.onnx")
    output = 'kind = "class-logits"\nactivation = "none"'
    write_toml(path, output=output, more='aliases = { red = "warm", blue = "warm" }')
    network = Network(path)
    assert network.names == ("warm", "green")
    assert ask_classes(path, plain((51, 51, 102))) == pytest.approx([0.6, 0.2], abs=1e-5)
    write_toml(path, output=output, more="background = 1")
    assert Network(path).names == ("red", "blue")
    assert ask_classes(path, plain((51, 51, 102))) == pytest.approx([0.2, 0.4], abs=1e-5)


@pytest.mark.parametrize("size", [32, [32, 48]], ids=["square", "wide"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("corner", ["centre", "top-left"])
def test_masks_lie_on_the_picture_wherever_it_lay_on_the_input(
    tmp_path: Path, size: int | list[int], fit: str, corner: str
) -> None:
    image = halves((230, 20, 0), (0, 20, 230))
    given = f'size = {size}\nfit = "{fit}"\nplace = "{corner}"\nscale = 1\nfill = [0, 255, 0]'
    shape = [size, size] if isinstance(size, int) else size
    left, right = np.zeros((32, 64), dtype=bool), np.zeros((32, 64), dtype=bool)
    left[:, :26], right[:, 38:] = True, True  # a cell is up to 8 pixels wide, and blends with its neighbour
    path = write_toml(write_cells(tmp_path / "logits.onnx", size=shape), given=given, output='kind = "mask-logits"')
    found = ask_mask(path, image)
    assert found.ids.shape == (32, 64)
    assert set(found.ids[4:-4][left[4:-4]]) == {1}
    assert set(found.ids[4:-4][right[4:-4]]) == {3}
    path = write_toml(write_cell_ids(tmp_path / "ids.onnx", size=shape), given=given, output='kind = "mask-ids"')
    found = ask_mask(path, image)
    assert set(found.ids[left]) == {1}
    assert set(found.ids[right]) == {3}
    assert set(found.probs.flatten()) == {255}


def test_a_mask_says_how_sure_it_is(tmp_path: Path) -> None:
    cells = write_cells(tmp_path / "t.onnx")
    path = write_toml(cells, output='kind = "mask-logits"\nactivation = "none"', more="background = 1")
    found = ask_mask(path, plain((0, 153, 51)))
    assert (set(found.ids.flatten().tolist()), set(found.probs.flatten().tolist())) == (
        {0},
        {153},
    )  # green is background here
    found = ask_mask(path, plain((0, 51, 204)))
    assert (set(found.ids.flatten().tolist()), set(found.probs.flatten().tolist())) == ({2}, {204})
    path = write_toml(cells, output='kind = "mask-logits"')
    assert set(ask_mask(path, plain((255, 0, 0))).probs.flatten()) == {round(255 * np.e / (np.e + 2))}


def test_strips_of_a_large_mask_fit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (90, 70, 3), dtype=np.uint8)
    path = write_toml(write_cells(tmp_path / "t.onnx"), output='kind = "mask-logits"')
    whole = ask_mask(path, image)
    monkeypatch.setattr("training.data.labelling.decoding._MOST_VALUES", 7 * 70 * 3)
    strips = ask_mask(path, image)
    assert np.array_equal(whole.ids, strips.ids)
    assert np.abs(whole.probs.astype(int) - strips.probs).max() <= 1


# Of a picture 40 wide and 20 high, in shares of it: x1, y1, x2, y2.
SHARES = [(0.1, 0.2, 0.5, 0.7), (0.5, 0.1, 0.9, 0.9)]
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


def test_a_picture_lies_on_the_input_with_no_side_lost() -> None:
    shape = Input(size=(10, 20), fit="letterbox", scale=1)
    placement = place(shape, 1, 900)
    assert (placement.x.resized, placement.y.resized, placement.y.offset) == (20, 1, 4)


MASKS = 'kind = "mask-logits"'


@pytest.mark.parametrize(
    ("output", "names", "sentence"),
    [
        ('kind = "class-logits"', CLASSES, r"gave \[1, 3, 8, 8\]; wanted \[1, 3\], a value for each of the names"),
        (MASKS, CLASSES[:2], r"gave \[1, 3, 8, 8\] as nchw; wanted one picture and 2 classes"),
        (f'{MASKS}\nlayout = "nhwc"', CLASSES, r"gave \[1, 8, 3, 8\] as nhwc"),
        ('kind = "mask-ids"', CLASSES, r"gave \[1, 3, 8, 8\]; wanted one class id a cell"),
        ('kind = "yolox"', CLASSES, r"gave \[1, 3, 8, 8\]; wanted \[1, 21, 8\]: box, objectness and 3 classes"),
        (
            'kind = "boxes"\nboxes = "cells"\nscores = "cells"\nunit = "input"',
            CLASSES,
            r"gave cells \[1, 3, 8, 8\]; wanted \[N, K, 4\] boxes, and 3 scores a box",
        ),
    ],
)
def test_outputs_that_are_no_such_thing_are_refused(
    tmp_path: Path, output: str, names: tuple[str, ...], sentence: str
) -> None:
    network = Network(write_toml(write_cells(tmp_path / "t.onnx"), output=output, names=names))
    with pytest.raises(LabellingError, match=r"t\.onnx: " + sentence):
        network.answer(plain((1, 2, 3)))


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0)])
def test_scores_beyond_0_and_1_are_refused(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    given = 'size = 32\nfit = "stretch"\nscale = 1\nmean = [0.5, 0, 0]\nstd = [0.01, 1, 1]'
    for path, output in (
        (write_cells(tmp_path / "m.onnx"), 'kind = "mask-logits"\nactivation = "none"'),
        (write_classifier(tmp_path / "c.onnx"), 'kind = "class-logits"\nactivation = "none"'),
        (write_boxes(tmp_path / "b.onnx", SHARES), 'kind = "boxes"\nunit = "share"'),
    ):
        network = Network(write_toml(path, output=output, given=given))
        if output.startswith('kind = "mask') and colour == (0, 0, 0):
            continue  # the best of the other classes is 0
        with pytest.raises(LabellingError, match=r"gave scores from .* is \[output\] activation right"):
            network.answer(plain(colour))


def test_labels_and_ids_without_a_name_are_refused(tmp_path: Path) -> None:
    ids = Network(write_toml(write_cell_ids(tmp_path / "i.onnx"), output='kind = "mask-ids"', names=CLASSES[:2]))
    with pytest.raises(LabellingError, match=r"gave ids from 2 to 2; wanted 0 to 1"):
        ids.answer(plain((0, 0, 9)))
    path = write_boxes(tmp_path / "b.onnx", [(0.1, 0.1, 0.5, 0.5)] * 3, is_told=True)
    given = 'size = 32\nfit = "stretch"\nscale = 1\nsize_name = "orig_target_sizes"'
    write_toml(path, given=given, output='kind = "boxes"\nlabels = "labels"\nunit = "original"', names=CLASSES[:2])
    with pytest.raises(LabellingError, match=r"gave labels from 0 to 2; wanted 0 to 1"):
        Network(path).answer(plain((9, 9, 9)))


@pytest.mark.parametrize(
    ("given", "output", "sentence"),
    [
        ('size = 48\nfit = "stretch"\nscale = 1', MASKS, r"images is \['n', 3, 32, 32\]; .* say \[1, 3, 48, 48\]"),
        ('size = 32\nfit = "stretch"\nscale = 1\nlayout = "nhwc"', MASKS, r"say \[1, 32, 32, 3\]"),
        ('size = 32\nfit = "stretch"\nscale = 1\nname = "pixels"', MASKS, r"\[input\] name wants one .* not 'pixels'"),
        ('size = 32\nfit = "stretch"\nscale = 1\nsize_name = "s"', MASKS, r"\[input\] names images, s"),
        ("", 'kind = "mask-logits"\nname = "logits"', r"outputs are cells; \[output\] names logits"),
        ("", 'kind = "boxes"\nunit = "input"', r"outputs are cells; \[output\] names boxes"),
    ],
)
def test_a_file_that_is_not_as_described_is_refused_before_it_is_asked(
    tmp_path: Path, given: str, output: str, sentence: str
) -> None:
    path = write_toml(write_cells(tmp_path / "t.onnx"), output=output, given=given)
    with pytest.raises(LabellingError, match=r"t\.onnx: its .*" + sentence):
        Network(path)


def test_what_is_no_model_or_calls_foreign_operators_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.toml").write_text(write_toml(tmp_path / "text.onnx", output=MASKS).read_text())
    (tmp_path / "text.onnx").write_text("weights")
    with pytest.raises(LabellingError, match=r"text\.onnx: the file is no ONNX model"):
        Network(tmp_path / "text.toml")
    with pytest.raises(LabellingError, match=r"none\.onnx: the model file cannot be read"):
        Network(tmp_path / "none.toml")
    node = helper.make_node("Anything", ["images"], ["cells"], domain="my.own")
    value: list[Any] = [helper.make_tensor_value_info(name, FLOAT, [1, 3, 32, 32]) for name in ("images", "cells")]
    graph = helper.make_graph([node], "foreign", value[:1], value[1:])
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("my.own", 1)]
    (tmp_path / "text.onnx").write_bytes(helper.make_model(graph, opset_imports=domains).SerializeToString())
    with pytest.raises(LabellingError, match=r"text\.onnx: it has operators of my\.own; only ONNX Runtime's own"):
        Network(tmp_path / "text.onnx")


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    path = write_toml(write_cells(tmp_path / "t.onnx"), output=MASKS)
    first = Network(path)
    write_cells(tmp_path / "other.onnx", stride=8)
    path.write_text('model = "other.onnx"\n' + path.read_text())
    second = Network(path)
    assert second.path == tmp_path / "other.onnx"
    assert len(first.sha256) == len(second.sha256) == 64
    assert first.sha256 != second.sha256
