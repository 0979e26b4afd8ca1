"""From a path to data: folders that are guessed, data files with their root, and the file that ships."""

import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from tests.training.data.cli_running import run_data
from tests.training.data.layouts.odd_boxes import coco, draw
from tests.training.data.layouts.odd_others import folders, masks
from training.data.datasets import DataError
from training.data.sets.data_file import load_data_file
from training.data.sources import ROOT_VARIABLE, describe_data, read_data
from training.data.taxonomy import MINI, VOC


def test_today_s_folders_keep_the_names_of_what_they_were_taken_from(tiny_sets: Path) -> None:
    assert read_data(tiny_sets).taxonomy == MINI


def test_today_s_folders_with_other_classes_have_those(tmp_path: Path) -> None:
    coco()(tmp_path / "mini_coco_det")
    for path in tmp_path.rglob("labels.json"):
        path.write_text(path.read_text().replace('"person"', '"crack"').replace('"dog"', '"rust"'))
    folders(classes=("ant", "bee"))(tmp_path / "imagenette_160")
    masks((0, 1))(tmp_path / "mini_voc_seg")
    (tmp_path / "mini_voc_seg" / "classes.txt").write_text("background\nhole\n")
    taxonomy = read_data(tmp_path).taxonomy
    assert taxonomy.detection == ("crack", "rust")
    assert taxonomy.classification == ("ant", "bee")
    assert taxonomy.segmentation == ("background", "hole")


def test_neutral_folders_say_what_a_set_is_for(tmp_path: Path) -> None:
    coco()(tmp_path / "segmentation")
    coco()(tmp_path / "detection")
    folders()(tmp_path / "classification")
    taxonomy = read_data(tmp_path).taxonomy
    assert taxonomy.segmentation == ("background", "person", "dog")
    assert taxonomy.detection == ("person", "dog")
    assert taxonomy.classification == ("cat", "dog")
    assert taxonomy.same == (("person", "person"), ("dog", "dog"))


def test_the_root_is_given_or_the_file_s_own_folder_or_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("given", "own", "variable"):
        folders(classes=(name, "other"))(tmp_path / name / "set")
    path = tmp_path / "own" / "data.toml"
    path.write_text('[[source]]\ntask = "classification"\npath = "set"\n')
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "variable"))
    assert "given" in read_data(path, root=tmp_path / "given").taxonomy.classification
    assert "own" in read_data(path).taxonomy.classification
    shutil.rmtree(tmp_path / "own" / "set")
    assert "variable" in read_data(path).taxonomy.classification


def test_a_path_to_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder and no such data file; wanted a folder of data sets"):
        read_data(tmp_path / "nothing")


def test_the_file_that_ships_names_no_machine_and_its_choices_are_never_learned() -> None:
    shipped = resources.files("training.data.sets") / "large.toml"
    with resources.as_file(shipped) as path:
        data = load_data_file(path)
    assert not any(Path(source.path).is_absolute() for source in data.source)
    assert {source.split for source in data.source if source.path.startswith("measure")} == {"choose"}
    assert data.classes.names(data.source[3].task) == VOC


def test_the_large_set_is_read_where_it_lies(mini_sets_root: Path) -> None:
    root = mini_sets_root.parent / "large"
    if not root.is_dir():
        pytest.skip("no large set lies beside the mini sets")
    understood = describe_data(Path("large"), root=root)
    assert understood.problems == ()
    assert understood.sets is not None
    assert understood.sets.taxonomy == MINI
    detection = understood.sets.detection
    assert detection is not None
    assert (len(detection.choose), set(detection.weights)) == (354, {1.0, 4.0})
    assert sum(len(sample.boxes) for sample in detection.train if sample.scores is not None) == 41_022


def test_loops_and_links_end(tmp_path: Path) -> None:
    draw(tmp_path / "train" / "cat" / "a.jpg")
    draw(tmp_path / "val" / "cat" / "b.jpg")
    (tmp_path / "train" / "cat" / "inner").mkdir()
    (tmp_path / "train" / "cat" / "inner" / "up").symlink_to(tmp_path / "train" / "cat")
    (tmp_path / "train" / "cat" / "twice").symlink_to(tmp_path / "train" / "cat" / "inner")
    draw(tmp_path / "train" / "cat" / "inner" / "c.jpg")
    sets = read_data(tmp_path)
    assert sets.classification is not None
    assert [sample.image.name for sample in sets.classification.train] == ["a.jpg", "c.jpg"]


def test_show_prints_a_table_and_a_data_file_that_reads_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco()(tmp_path / "detection")
    masks((0, 1))(tmp_path / "segmentation")
    assert run_data("show", tmp_path) == 0
    shown = capsys.readouterr().out
    assert [line.split() for line in shown.splitlines() if "COCO JSON" in line] == [
        ["detection", "detection", "COCO", "JSON", "train", "4", "2", "1", "person,", "dog"]
    ]
    assert ["0", "person", "2", "2"] in [line.split() for line in shown.splitlines()]
    (tmp_path / "data.toml").write_text(shown[shown.index("[[source]]") :])
    assert run_data("show", tmp_path / "data.toml") == 0
    again = capsys.readouterr().out
    assert again[again.index("[[source]]") :] == shown[shown.index("[[source]]") :]


def test_show_runs_without_torch(tmp_path: Path) -> None:
    folders()(tmp_path)
    program = (
        "import sys\nfor name in ('torch', 'torchvision', 'rich', 'typer'): sys.modules[name] = None\n"
        f"from training.data.cli import main\nmain(['show', {str(tmp_path)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
