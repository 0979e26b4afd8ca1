import shutil
from pathlib import Path

import pytest
from torchvision.datasets import Imagenette
from torchvision.datasets.voc import DATASET_YEAR_DICT

from tests.training.data.prepare.running import Run
from training.config import Task
from training.data.prepare.releases import RELEASES, PrepareError
from training.data.prepare.sources import open_archive, open_release


def test_addresses_and_checksums_are_those_of_torchvision() -> None:
    (voc,), (imagenette,) = (RELEASES[task].parts for task in (Task.SEGMENTATION, Task.CLASSIFICATION))

    assert (voc.url, voc.md5) == (DATASET_YEAR_DICT["2012"]["url"], DATASET_YEAR_DICT["2012"]["md5"])
    assert (imagenette.url, imagenette.md5) == Imagenette._ARCHIVES["160px"]


@pytest.mark.parametrize("task", list(Task))
def test_archives_hold_what_folders_hold(trees: Path, archives: Path, task: Task) -> None:
    unpacked, packed = (open_release(root, RELEASES[task]) for root in (trees, archives))

    assert packed.names() == unpacked.names()
    assert all(packed.read(name) == unpacked.read(name) for name in packed.names())


def test_releases_are_found_one_folder_down(prepare: Run, trees: Path, archives: Path, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    shutil.copytree(trees / "VOCdevkit", tmp_path / "all/voc/VOCdevkit")
    shutil.copytree(trees / "imagenette2-160", tmp_path / "all/imagenette2-160")
    for name in ("annotations", "train2017"):
        shutil.copytree(trees / name, tmp_path / "all/coco" / name)
    shutil.copyfile(archives / "val2017.zip", tmp_path / "all/coco/val2017.zip")  # one part packed, two not

    assert prepare(tmp_path / "out", source=tmp_path / "all") == 0


def test_a_folder_goes_before_an_archive_of_the_same_part(trees: Path, tmp_path: Path) -> None:
    shutil.copytree(trees / "imagenette2-160", tmp_path / "imagenette2-160")
    (tmp_path / "imagenette2-160.tgz").write_bytes(b"still coming")

    assert len(open_release(tmp_path, RELEASES[Task.CLASSIFICATION]).names()) == 80


@pytest.mark.parametrize(
    ("missing", "layout"),
    [
        ("VOCdevkit", "VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation/{train,val}.txt}"),
        ("val2017", "annotations/instances_{train,val}2017.json, train2017/*.jpg, val2017/*.jpg"),
        ("imagenette2-160", "imagenette2-160/{train,val}/<wnid>/*.JPEG"),
    ],
)
def test_a_missing_release_is_told_with_the_expected_layout(
    prepare: Run, trees: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str, layout: str
) -> None:
    source = Path(shutil.copytree(trees, tmp_path / "trees", ignore=shutil.ignore_patterns(missing)))

    assert prepare(tmp_path / "out", source=source) == 1

    told = capsys.readouterr().err
    assert told.startswith(f"unihead-data prepare: {source}: has no {missing}")
    assert f"{layout}, or " in told


def test_a_folder_that_is_not_there_is_told(prepare: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(tmp_path / "out", source=tmp_path / "nowhere") == 1

    assert f"{tmp_path / 'nowhere'}: no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["VOCtrainval_11-May-2012.tar", "val2017.zip", "imagenette2-160.tgz"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_an_archive_that_is_cut_short_is_refused(archives: Path, tmp_path: Path, name: str, share: float) -> None:
    body = (archives / name).read_bytes()
    (tmp_path / name).write_bytes(body[: int(len(body) * share)])

    with pytest.raises(PrepareError, match="damaged or cut short, download it again"):
        open_archive(tmp_path / name)


@pytest.mark.parametrize("name", ["VOCdevkit/VOC2012/JPEGImages/none.jpg", "elsewhere/x.jpg"])
def test_a_missing_file_is_named(trees: Path, archives: Path, name: str) -> None:
    for root in (trees, archives):
        with pytest.raises(PrepareError, match=f"^{name}: no such file"):
            open_release(root, RELEASES[Task.SEGMENTATION]).read(name)


def test_a_flipped_byte_in_a_zip_is_noticed(archives: Path, tmp_path: Path) -> None:
    for name in ("annotations_trainval2017", "train2017", "val2017"):
        shutil.copyfile(archives / f"{name}.zip", tmp_path / f"{name}.zip")
    body = bytearray((tmp_path / "val2017.zip").read_bytes())
    body[300] ^= 0xFF  # inside the picture that was packed first
    (tmp_path / "val2017.zip").write_bytes(body)

    files = open_release(tmp_path, RELEASES[Task.DETECTION])

    with pytest.raises(PrepareError, match=r"val2017/000000005015\.jpg: cannot be read: Bad CRC-32"):
        files.read("val2017/000000005015.jpg")
