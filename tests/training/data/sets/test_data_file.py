import re
from pathlib import Path

import pytest

from tests.checkout import ROOT
from training.data.datasets import DataError
from training.data.sets.data_file import DataFile, Source, format_data_file, load_data_file
from training.options.base import Task

WHOLE = """
[classes]
detection = "coco"
segmentation = ["background", "crack"]

[same]
crack = "a crack"

[[source]]
task = "segmentation"
path = "walls"
layout = "masks"
split = "train"
hold_out = 0.2
weight = 2.5
values = {0 = "background", 255 = "crack", 9 = "void"}

[[source]]
task = "detection"
path = 'pictures of "walls"'
names = ["crack", "人"]
aliases = {"old name" = "crack"}
known = ["crack"]
others = "void"
image_labels = ["crack"]
min_score = 0.5
unsure_score = 0.25
"""


def load(text: str, folder: Path) -> DataFile:
    (folder / "data.toml").write_text(text)
    return load_data_file(folder / "data.toml")


def test_every_key_is_read_and_written(tmp_path: Path) -> None:
    data = load(WHOLE, tmp_path)
    assert data.tasks == (Task.SEGMENTATION, Task.DETECTION)
    assert data.source[0].values == {0: "background", 255: "crack", 9: "void"}
    assert load(format_data_file(data), tmp_path) == data
    written = {key for source in data.source for key in source.model_dump(exclude_defaults=True)}
    assert written == Source.model_fields.keys()


def test_the_data_file_in_the_documents_is_one(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    shown = {key for source in load(block, tmp_path).source for key in source.model_dump(exclude_defaults=True)}
    assert shown == Source.model_fields.keys()


SOURCE = '[[source]]\ntask = "detection"\npath = "a"\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"source: Field required; a \[\[source\]\] may have task, path, layout"),
        ("[[source]\n", r"data\.toml: .*wanted TOML with one \[\[source\]\] for each set"),
        (SOURCE + "wieght = 2\n", r"source\.0\.wieght: Extra inputs are not permitted"),
        (
            SOURCE + 'layout = "folders"\n',
            r"source\.0: .*layout 'folders' is for classification, the task is detection",
        ),
        (SOURCE + 'layout = "cocoa"\n', r"source\.0\.layout: Input should be 'masks'"),
        (SOURCE + 'split = "test"\n', r"source\.0\.split: Input should be 'train', 'val' or 'choose'"),
        (SOURCE + "weight = 0\n", r"source\.0\.weight: Input should be greater than 0"),
        (SOURCE + 'values = {0 = "a"}\n', r"source\.0: .*values are for masks"),
        (SOURCE + "unsure_score = 0.5\nmin_score = 0.3\n", r"unsure_score 0\.5 is above min_score 0\.3"),
        (SOURCE + 'split = "val"\nhold_out = 0.3\n', r"hold_out takes pictures of train, and split is 'val'"),
        (
            SOURCE.replace("detection", "segmentation") + 'values = {256 = "a"}\n',
            r"values has 256; a mask holds 0 to 255",
        ),
        (
            SOURCE.replace("detection", "classification") + 'image_labels = ["a"]\n',
            r"image_labels is for boxes, the task is classification",
        ),
        ('[classes]\ndetection = "cocoa"\n' + SOURCE, r"detection is 'cocoa'; wanted a list of names, or one of voc"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=sentence):
        load(text, tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.toml: No such file"):
        load_data_file(tmp_path / "none.toml")
