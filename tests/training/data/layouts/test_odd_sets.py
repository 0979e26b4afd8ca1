"""What becomes of each odd set: read, with so many pictures and these classes, or refused with this sentence."""

import re
import warnings
from pathlib import Path
from typing import Final

import pytest

from tests.training.data.cli_running import run_data
from tests.training.data.layouts.odd_boxes import BOXES
from tests.training.data.layouts.odd_others import OTHERS
from training.data.datasets import DataError
from training.data.sources import read_data

SETS = {**BOXES, **OTHERS}
PERSON_DOG: Final = "detection 4 + 4: person, dog"
CAT_DOG: Final = "classification 6 + 6: cat, dog"
BACKGROUND: Final = "segmentation 3 + 3: background"
REFUSED: Final = {
    "coco_bbox_nan_alone": r"train/labels\.json, annotation 1: .*wanted image_id, category_id and a bbox of four",
    "coco_keypoints_alone": r"train/labels\.json, annotation 1: .*wanted image_id, category_id and a bbox of four",
    "coco_no_annotations": r"train/labels\.json: it has no list annotations; wanted a COCO JSON",
    "coco_list_top": r"train/labels\.json: it holds a list; wanted .*: take the object out of its list",
    "coco_empty_file": r"train/labels\.json: the file is empty; wanted .*: export it again",
    "coco_json_lines": r"train/labels\.json: it has one JSON object a line \(JSON Lines\); wanted",
    "labelme": r"labelme: .*train/0\.json is a file of LabelMe, which no part of this reads; convert it to COCO JSON",
    "folders_bmp": r"train/cat: 3 files such as train_0\.bmp, which no part of this reads; convert them to JPEG",
    "folders_gif": r"train/cat: 3 files such as train_0\.gif, which no part of this reads; convert them to JPEG",
    "folders_case": r"folders_case: the classes 'Cat' and 'cat' differ in spelling alone; .*write aliases = ",
    "masks_0_255": r'the masks hold 0, 255, .*write values = \{0 = "background", 255 = "foreground"\}',
    "masks_with_gaps": r'hold 0, 128, 255, .*values = \{0 = "background", 128 = "class 1", 255 = "void"\}',
    "masks_one_value": r"masks_one_value: every mask holds 0 alone; wanted two values at least",
    "masks_rgb": r"train/train0\.png: the mask's mode is RGB, it stores colours; wanted .*save it as a palette PNG",
    "masks_rgba": r"train/train0\.png: the mask's mode is RGBA, it stores colours; wanted .*save it as a palette PNG",
    "masks_jpeg": r"train/train0\.jpeg: the mask is a JPEG, which changes the values; save it as PNG",
}
READ: Final = {
    **dict.fromkeys(BOXES.keys() - REFUSED.keys(), PERSON_DOG),
    "coco_unicode": "detection 4 + 4: 人, Hündin",
    **dict.fromkeys(("voc_xml_only", "voc_floats", "voc_zero_based", "voc_crlf", "yolo"), "detection 3 + 3: dog"),
    **dict.fromkeys((name for name in OTHERS if name.startswith("folders") and name not in REFUSED), CAT_DOG),
    "folders_unicode": "classification 9 + 9: a'b&c<d>, chien été, 猫",
    "folders_symlink": "classification 9 + 9: bird, cat, dog",
    "folders_png_named_jpg": "classification 7 + 7: cat, dog",
    "masks_palette": f"{BACKGROUND}, class 1, class 2",
    "masks_grey": f"{BACKGROUND}, class 1, class 2",
    "masks_16_bit": f"{BACKGROUND}, class 1, class 2",
    "masks_1_bit": f"{BACKGROUND}, class 1",
}


def read(root: Path) -> str:
    with warnings.catch_warnings(action="ignore"):  # told by `show`; what they say is tested elsewhere
        sets = read_data(root)
    (task,) = sets.taxonomy.tasks
    split = sets.split(task)
    return f"{task} {len(split.train)} + {len(split.val)}: {', '.join(sets.taxonomy.names(task))}"


def test_every_odd_set_has_its_outcome() -> None:
    assert sorted([*READ, *REFUSED]) == sorted(SETS)


@pytest.mark.parametrize("name", sorted(SETS))
def test_an_odd_set_is_read_or_refused_and_shown(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / name
    SETS[name](root)
    if name in REFUSED:
        with pytest.raises(DataError, match=REFUSED[name]):
            read(root)
    else:
        assert read(root) == READ[name]
    assert run_data("show", root) == (1 if name in REFUSED else 0)
    shown = capsys.readouterr().out
    assert (re.search(REFUSED[name], shown) is not None) if name in REFUSED else ("cannot be used" not in shown)
    assert ("[[source]]" in shown) == (name != "labelme")


@pytest.mark.parametrize("name", sorted(SETS.keys() - {"labelme"}))
def test_the_doctor_refuses_what_training_refuses(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SETS[name](tmp_path / name)
    assert run_data("doctor", tmp_path / name) == (1 if name in REFUSED else 0), capsys.readouterr().out
