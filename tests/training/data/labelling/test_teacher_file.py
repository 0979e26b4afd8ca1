from pathlib import Path

import pytest

from training.data.labelling.faults import LabellingError
from training.data.labelling.teacher_file import load_teacher_file
from training.data.taxonomy import COCO, IMAGENETTE, VOC, load_imagenet_names
from training.options.base import Task

INPUT = '[input]\nsize = 32\nfit = "stretch"\nscale = 1\n'
OUTPUT = '[output]\nkind = "class-logits"\n'
CLASSES = '[classes]\nnames = ["cat", "dog"]\n'
BOXES = '[output]\nkind = "boxes"\nunit = "original"\n'


def write(folder: Path, text: str) -> Path:
    (folder / "t.toml").write_text(text)
    return folder / "t.toml"


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("class-logits", Task.CLASSIFICATION),
        ("mask-logits", Task.SEGMENTATION),
        ("mask-ids", Task.SEGMENTATION),
        ("yolox", Task.DETECTION),
    ],
)
def test_the_kind_of_output_says_the_task(tmp_path: Path, kind: str, task: Task) -> None:
    described, model = load_teacher_file(write(tmp_path, f'{INPUT}[output]\nkind = "{kind}"\n{CLASSES}'))
    assert (described.task, model) == (task, tmp_path / "t.onnx")


def test_the_onnx_file_finds_its_toml_and_the_toml_its_model(tmp_path: Path) -> None:
    path = write(tmp_path, f'model = "weights/big.onnx"\n{INPUT}{OUTPUT}{CLASSES}')
    assert load_teacher_file(path)[1] == tmp_path / "weights" / "big.onnx"
    assert load_teacher_file(tmp_path / "t.onnx")[1] == tmp_path / "t.onnx"


@pytest.mark.parametrize(
    ("name", "names"),
    [("voc", VOC), ("coco", COCO), ("imagenette", tuple(IMAGENETTE.values())), ("imagenet", load_imagenet_names())],
)
def test_shipped_names_go_by_one_word(tmp_path: Path, name: str, names: tuple[str, ...]) -> None:
    described, _ = load_teacher_file(write(tmp_path, f'{INPUT}{OUTPUT}[classes]\nnames = "{name}"\n'))
    assert described.classes.by_position() == tuple(None if each == "background" else each for each in names)
    assert described.names == tuple(each for each in names if each != "background")


def test_aliases_rename_and_a_position_may_be_background(tmp_path: Path) -> None:
    classes = '[classes]\nnames = ["nothing", "cat", "kitten"]\nbackground = 0\naliases = { kitten = "cat" }\n'
    described, _ = load_teacher_file(write(tmp_path, f"{INPUT}{OUTPUT}{classes}"))
    assert described.classes.by_position() == (None, "cat", "cat")
    assert described.names == ("cat",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"input: Field required; output: Field required; classes: Field required; wanted \[input\]"),
        ("[input", r"wanted TOML with \[input\], \[output\] and \[classes\]"),
        (f"{INPUT}sise = 3\n{OUTPUT}{CLASSES}", r"input\.sise: Extra inputs are not permitted"),
        (f"{OUTPUT}{CLASSES}[input]\nsize = 32\nscale = 1\n", r"input\.fit: Field required"),
        (f'{OUTPUT}{CLASSES}[input]\nsize = 32\nfit = "crop"\nscale = 1\n', r"input\.fit: Input should be 'stretch'"),
        (f"{INPUT.replace('= 1', '= 2')}{OUTPUT}{CLASSES}", r"input\.scale: Input should be 1 or 255"),
        (f"{INPUT.replace('32', '0')}{OUTPUT}{CLASSES}", r"input\.size.*greater than 0"),
        (f'{INPUT}[output]\nkind = "boxen"\n{CLASSES}', r"output: Input tag 'boxen' .* 'class-logits', 'mask-logits'"),
        (f'{INPUT}[output]\nkind = "boxes"\n{CLASSES}', r"output\.boxes\.unit: Field required"),
        (f"{INPUT}{OUTPUT}strides = [8]\n{CLASSES}", r"output\.class-logits\.strides: Extra inputs"),
        (
            f"{INPUT.replace('stretch', 'letterbox')}{BOXES}{CLASSES}",
            r'boxes in pixels of the original want fit = "str',
        ),
        (f'{INPUT.replace("32", "40")}[output]\nkind = "yolox"\n{CLASSES}', r"size 40 is no multiple of the stride 16"),
        (
            f'{INPUT}{OUTPUT}[classes]\nnames = "cocoa"\n',
            r"names is 'cocoa'; wanted a list of names, or one of voc, coco",
        ),
        (f"{INPUT}{OUTPUT}[classes]\nnames = []\n", r"names has an empty one, or none"),
        (f'{INPUT}{OUTPUT}{CLASSES}aliases = {{ cow = "cat" }}\n', r"aliases has 'cow', which is none of the 2 names"),
        (f"{INPUT}{OUTPUT}{CLASSES}background = 2\n", r"background is 2; wanted a position among 2 names, from 0"),
        (
            f'{INPUT}[output]\nkind = "mask-ids"\n[classes]\nnames = "imagenet"\n',
            r"a mask has no room for 1000 classes",
        ),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(LabellingError, match=r"t\.toml: .*" + sentence):
        load_teacher_file(write(tmp_path, text))


def test_an_onnx_file_without_description_is_told_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(LabellingError, match=r"t\.toml: No such file.*one of the same name beside it"):
        load_teacher_file(tmp_path / "t.onnx")
