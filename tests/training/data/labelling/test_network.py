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
    SHARES,
    UINT8,
    plain,
    write_boxes,
    write_cell_ids,
    write_cells,
    write_classifier,
    write_graph,
    write_toml,
)
from training.data.labelling.answers import ClassAnswer, MaskAnswer
from training.data.labelling.faults import LabellingError
from training.data.labelling.network import Network
from training.data.labelling.teacher_file import Input


def halves(left: tuple[int, int, int], right: tuple[int, int, int], height: int = 32, width: int = 64) -> UInt8Array:
    image = plain(left, height, width)
    image[:, width // 2 :] = right
    return image


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


def test_a_picture_lies_on_the_input_with_no_side_lost() -> None:
    placement = Input(size=(10, 20), fit="letterbox", scale=1).frame.place(1, 900)
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
