"""What docs/how-to/labelling.md shows is so."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from PIL import Image
from pydantic import TypeAdapter

from tests.training.data.labelling.running import label
from tests.training.data.labelling.shown import PAGE, write_shown
from training.data.labelling.image_labels import ImageLabels
from training.data.labelling.rules import Rules
from training.data.labelling.teacher_file import (
    BoxLists,
    Classes,
    ClassLogits,
    Input,
    MaskIds,
    MaskLogits,
    Yolox,
    load_teacher_file,
)
from training.data.sources import read_data
from training.options.base import Frozen
from training.options.stage import TeacherConfig


def test_every_teacher_of_the_page_labels(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (60, 40 + number), (240, 250 - number, 245)).save(folder / f"{number}.png")
    paths = write_shown(tmp_path / "teachers")
    assert [load_teacher_file(path)[0].output.kind for path in paths] == ["boxes", "yolox", "mask-logits"]
    assert label(tmp_path / "out", folder, *paths) == 0
    sets = read_data(tmp_path / "out" / "data.toml")
    assert (sets.taxonomy.segmentation, len(sets.taxonomy.detection)) == (("background", "road", "car"), 80)
    rows = json.loads((tmp_path / "out" / "labels.json").read_text())["annotations"]
    assert {row["category_id"] for row in rows} == {0, 1}


@pytest.mark.parametrize("part", [Input, Classes, ClassLogits, MaskLogits, MaskIds, BoxLists, Yolox, Rules])
def test_every_key_and_rule_is_on_the_page(part: type[Frozen]) -> None:
    ending = "--{}" if part is Rules else "`{}`"
    names = [name.replace("_", "-") if part is Rules else name for name in part.model_fields]
    assert [name for name in names if ending.format(name) not in PAGE] == []


def test_defaults_on_the_page_are_those_of_the_rules() -> None:
    rules = Rules()
    shown = re.findall(r"`--([\w-]+)` \(([\d.]+)\)", PAGE)
    assert len(shown) == 5
    assert {name: float(value) for name, value in shown} == {
        name: getattr(rules, name.replace("-", "_")) for name, _ in shown
    }


def test_the_other_files_of_the_page_are_what_they_say() -> None:
    (image_labels,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    known = TypeAdapter(dict[str, ImageLabels]).validate_json(image_labels)
    assert known["chelsea.jpg"].absent == ("dog", "person")
    stage = re.findall(r"```toml\n(\[\[stages.*?)```", PAGE, re.DOTALL)[0]
    assert TeacherConfig.model_validate(tomllib.loads(stage)["stages"]["teachers"][0]).source == "segmenter.toml"
