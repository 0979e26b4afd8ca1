import json
import shutil
from pathlib import Path

import pytest

from tests.training.commands.invoking import run_tiny
from training.data.doctor.preflight import UnfitDataError, check_data


@pytest.fixture
def unlisted(tiny_sets: Path, tmp_path: Path) -> Path:
    """Sets whose detection part has an annotation of a picture that its file does not list."""
    root = tmp_path / "data"
    shutil.copytree(tiny_sets, root)
    path = root / "mini_coco_det" / "train" / "labels.json"
    labels = json.loads(path.read_text())
    labels["annotations"][0]["image_id"] = 999
    path.write_text(json.dumps(labels))
    return root


def test_what_the_readers_repair_is_told_and_does_not_stop(tiny_sets: Path) -> None:
    told: list[str] = []
    check_data(tiny_sets, (), told.append)
    assert any("category-ids-differ" in text and "repaired by the training readers" in text for text in told)
    assert not any(text.startswith("info") for text in told)


def test_any_other_error_stops_and_says_how_to_go_on(unlisted: Path) -> None:
    with pytest.raises(UnfitDataError, match=r"unknown-image-id.*--accept unknown-image-id"):
        check_data(unlisted, (), lambda _: None)


def test_an_accepted_error_is_told_and_does_not_stop(unlisted: Path) -> None:
    told: list[str] = []
    check_data(unlisted, ["unknown-image-id"], told.append)
    assert any("unknown-image-id" in text for text in told)


def test_accepting_what_is_no_code_is_an_error(tiny_sets: Path) -> None:
    with pytest.raises(UnfitDataError, match="no code 'typo'"):
        check_data(tiny_sets, ["typo"], lambda _: None)


def test_a_run_on_unfit_data_leaves_nothing(unlisted: Path, tmp_path: Path) -> None:
    result = run_tiny(unlisted, tmp_path / "run")
    assert result.exit_code == 1
    assert "--accept unknown-image-id" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()
