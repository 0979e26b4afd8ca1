import shutil
from pathlib import Path

import pytest

from tests.training.data.cli_running import run_data
from tests.training.data.doctor.clean_sets import write_clean_sets, write_official_sets
from tests.training.data.doctor.plants import COCO, PLANTS, Plant, foreign_file, in_annotation, renumber_val
from training.config import Config, load_config
from training.data.doctor.codes import CODES
from training.data.doctor.examine import examine
from training.data.doctor.findings import Examination, Severity
from training.data.doctor.layouts import LayoutError

STATISTICS = {"objects-share-cell"}
# The clean sets have no masks by outlines; tests/training/data/layouts has.
ELSEWHERE = {"annotation-without-outline"}


@pytest.fixture(scope="session")
def clean_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clean_sets(tmp_path_factory.mktemp("clean"))


@pytest.fixture
def sick_sets(clean_sets: Path, tmp_path: Path) -> Path:
    """A copy of the clean sets, to be spoilt."""
    return shutil.copytree(clean_sets, tmp_path / "sick")


def codes(examination: Examination) -> set[str]:
    return {finding.code for finding in examination.findings} - STATISTICS


def test_clean_sets_give_no_finding(clean_sets: Path) -> None:
    examination = examine(clean_sets)
    assert codes(examination) == set()
    assert not examination.has_errors


@pytest.mark.parametrize(
    ("code", "plant"), PLANTS, ids=[f"{number:02d}-{code}" for number, (code, _) in enumerate(PLANTS)]
)
def test_a_planted_fault_is_found_and_nothing_else(code: str, plant: Plant, sick_sets: Path) -> None:
    plant(sick_sets)
    examination = examine(sick_sets)
    assert codes(examination) == {code}
    assert examination.has_errors == (CODES[code][0] is Severity.ERROR)


def test_every_code_has_a_plant() -> None:
    assert {code for code, _ in PLANTS} == CODES.keys() - STATISTICS - ELSEWHERE


def test_official_releases_give_no_finding(clean_sets: Path, tmp_path: Path) -> None:
    examination = examine(write_official_sets(clean_sets, tmp_path / "official"))
    assert codes(examination) == set()
    assert [(each.layout, [split.pictures for split in each.splits]) for each in examination.sets] == [
        ("COCO JSON", [6, 3]),
        ("PASCAL VOC masks", [6, 3]),
    ]


def test_official_lists_that_name_absent_pictures_are_told(clean_sets: Path, tmp_path: Path) -> None:
    root = write_official_sets(clean_sets, tmp_path / "official")
    (root / "voc" / "VOCdevkit" / "VOC2012" / "JPEGImages" / "2007_val_001.jpg").unlink()
    (root / "coco" / "train2017" / "train000000002.jpg").unlink()
    (finding,) = [each for each in examine(root).findings if each.severity is Severity.ERROR]
    assert finding.code == "listed-picture-missing"
    assert {case.where for case in finding.cases} == {
        "voc/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt",
        "coco/annotations/instances_train2017.json",
    }


def test_one_set_alone_is_examined(clean_sets: Path) -> None:
    (only,) = examine(clean_sets / COCO).sets
    assert (only.name, only.task, only.layout) == (COCO, "detection", "COCO JSON")


def test_class_folders_may_have_any_names(clean_sets: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        folders = sorted((clean_sets / "imagenette_160" / split).iterdir())
        for folder, name in zip(folders, ("ant", "bee", "cow"), strict=True):
            shutil.copytree(folder, tmp_path / "pets" / split / name)
    examination = examine(tmp_path / "pets")
    assert codes(examination) == set()
    assert examination.sets[0].splits[0].class_counts == {"ant": 2, "bee": 2, "cow": 2}


def test_a_case_says_where_what_came_and_what_was_wanted(sick_sets: Path) -> None:
    in_annotation(bbox=[90, 10, 20, 20])(sick_sets)
    (finding,) = [each for each in examine(sick_sets).findings if each.code == "box-outside-picture"]
    (case,) = finding.cases
    assert case.where == "mini_coco_det/train/labels.json annotation 1"
    assert case.detail == "x, y, width, height = [90, 10, 20, 20]; wanted it within the picture's 96 x 80"


def test_findings_are_ordered_by_severity_then_count(sick_sets: Path) -> None:
    for plant in (plant for code, plant in PLANTS if code in {"cmyk-picture", "tiny-box", "unlisted-picture"}):
        plant(sick_sets)
    renumber_val(sick_sets)
    found = [(each.severity, each.code) for each in examine(sick_sets).findings]
    assert found == [
        (Severity.WARNING, "category-ids-differ"),
        (Severity.WARNING, "cmyk-picture"),
        (Severity.WARNING, "tiny-box"),
        (Severity.INFO, "objects-share-cell"),
        (Severity.INFO, "unlisted-picture"),
    ]


def test_summaries_count_objects_pixels_and_pictures(clean_sets: Path) -> None:
    classification, detection, segmentation = examine(clean_sets).sets
    assert classification.splits[1].class_counts == {"tench": 1, "chain saw": 1, "parachute": 1}
    assert detection.splits[0].class_counts == {"cat": 4, "dog": 4, "person": 4}
    assert detection.splits[0].box_sides_px == pytest.approx([(20 * 24) ** 0.5] * 12)
    # 20 x 24 px each; their void border is no class, and background is not counted.
    assert segmentation.splits[0].class_counts == dict.fromkeys(("cat", "dog", "person"), 4 * 20 * 24)
    assert segmentation.splits[0].picture_sizes == ((96, 80),) * 6


def test_crowds_are_not_counted_as_objects(sick_sets: Path) -> None:
    in_annotation(iscrowd=1)(sick_sets)
    train = examine(sick_sets / COCO).sets[0].splits[0]
    assert train.class_counts == {"cat": 3, "dog": 4, "person": 4}
    assert len(train.box_sides_px) == 11


def test_an_annotation_file_with_half_of_its_pictures_here_is_not_foreign(sick_sets: Path) -> None:
    foreign_file(sick_sets, present=4)
    assert codes(examine(sick_sets)) == set()


def test_pictures_carry_what_is_drawn(clean_sets: Path) -> None:
    classification, detection, segmentation = (each.pictures[0] for each in examine(clean_sets).sets)
    assert classification.label == "tench"
    assert [(name, is_crowd) for name, _, is_crowd in detection.boxes] == [("cat", False), ("dog", False)]
    assert segmentation.mask == segmentation.path.with_suffix(".png")


@pytest.mark.parametrize("folder", ["", "missing"])
def test_a_folder_without_data_sets_is_refused(folder: str, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="wanted"):
        examine(tmp_path / folder)


def test_objects_are_counted_on_the_grids_of_the_preset(clean_sets: Path) -> None:
    def grids(config: Config | None = None) -> set[str]:
        (finding,) = (each for each in examine(clean_sets, config=config).findings if each.code == "objects-share-cell")
        return {case.detail.split(" at ")[1].split(":")[0] for case in finding.cases}

    default = {
        "320 px, stride 8 (40 x 40 cells)",
        "320 px, stride 16 (20 x 20 cells)",
        "320 px, stride 32 (10 x 10 cells)",
    }
    assert grids() == default
    assert grids(load_config("seed")) == {"512 px, stride 32 (16 x 16 cells)"}


def test_the_command_takes_a_preset(clean_sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_data("doctor", clean_sets, "--preset", "tiny") == 0
    assert "train at 64 px, stride 32 (2 x 2 cells)" in capsys.readouterr().out
    assert run_data("doctor", clean_sets, "--preset", "none") == 2
    assert "presets are" in capsys.readouterr().err
