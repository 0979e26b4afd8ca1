from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from service.commands.local import RunEnded
from service.commands.predict import main
from service.commands.results import Record
from service.commands.yolo import plan_labels, write_labels
from tests.service.fakes import encode, make_picture

RECORDS: list[Record] = [
    {"file": "a/bad.jpg", "error": {"code": "damaged_image", "detail": "cut"}},
    {
        "file": "a/x.jpg",
        "image": {"width": 200, "height": 100},
        "detections": [
            {"box": [20, 10, 60, 40], "label": "cat", "label_id": 1, "score": 0.5},
            {"box": [0, 0, 200, 100], "label": "person", "label_id": 0, "score": 0.25},
        ],
    },
    {"file": "b/x.jpg", "image": {"width": 2, "height": 1}, "detections": []},
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("here")
def test_a_picture_has_a_file_and_a_box_a_line() -> None:
    out = Path("set")
    places = plan_labels(out, [one["file"] for one in RECORDS])
    write_labels(out, RECORDS, places, ["person", "cat: \U0001f408\n"], scores=False)
    written = {str(path): path.read_text("utf-8") for path in out.rglob("*.*")}
    listing = yaml.safe_load(written.pop("set/data.yaml"))
    assert listing == {"train": "images", "nc": 2, "names": {0: "person", 1: "cat: \U0001f408\\n"}}
    assert written == {
        "set/labels/a/x.txt": "1 0.200000 0.250000 0.200000 0.300000\n0 0.500000 0.500000 1.000000 1.000000\n",
        "set/labels/b/x.txt": "",
        "set/classes.txt": "person\ncat: \U0001f408\\n\n",
    }


@pytest.mark.usefixtures("here")
def test_a_sixth_column_has_the_score() -> None:
    places = plan_labels(Path("set"), [one["file"] for one in RECORDS])
    write_labels(Path("set"), RECORDS, places, ["person", "cat"], scores=True)
    first, _ = Path("set/labels/a/x.txt").read_text().splitlines()
    assert first == "1 0.200000 0.250000 0.200000 0.300000 0.500000"


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["p/a.jpg", "p/b.png"], ["a.txt", "b.txt"]),
        (["p/a.jpg", "p/q/a.jpg"], ["a.txt", "q/a.txt"]),
        (["p/a.jpg", "../q/a.jpg"], ["{}/p/a.txt", "q/a.txt"]),
        (["p/x.y.jpg", "p/none"], ["x.y.txt", "none.txt"]),
        (["-"], ["-.txt"]),
        ([], []),
    ],
)
def test_boxes_lie_as_their_pictures_do(here: Path, names: list[str], places: list[str]) -> None:
    wanted = [Path("set/labels") / place.format(here.name) for place in places]
    assert list(plan_labels(Path("set"), names).values()) == wanted


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("names", [["p/x.jpg", "p/x.png"], ["x", "./x.jpg"]])
def test_two_pictures_do_not_share_a_file(names: list[str]) -> None:
    with pytest.raises(RunEnded, match="would both be") as caught:
        plan_labels(Path("set"), names)
    assert caught.value.code == 2


def test_labels_that_are_there_are_not_written_over(here: Path) -> None:
    (here / "labels").mkdir()
    assert plan_labels(here, ["x.jpg"])
    (here / "labels" / "x.txt").write_text("0 0.5 0.5 1 1\n")
    with pytest.raises(RunEnded, match="not written over"):
        plan_labels(here, ["x.jpg"])


# By the command


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int | str | None, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code, capsys.readouterr().err


@pytest.fixture
def images(here: Path) -> Path:
    for number in range(3):
        path = here / "set" / "images" / ("train" if number else "val") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(make_picture(48 + number, 32, seed=number)))
    return here / "set" / "images"


def test_labels_lie_beside_their_pictures(images: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = run(capsys, images, "--recursive", "--yolo", "set", "--yolo-scores", "--model", tiny_model)
    assert code == 0
    written = sorted(str(path) for path in Path("set/labels").rglob("*.txt"))
    assert written == ["set/labels/train/1.txt", "set/labels/train/2.txt", "set/labels/val/0.txt"]
    lines = Path("set/labels/val/0.txt").read_text().splitlines()
    assert [(line.split()[0], line.split()[5]) for line in lines] == [("1", "0.900000"), ("0", "0.600000")]
    assert len(Path("set/classes.txt").read_text().splitlines()) == 4
    listing = yaml.safe_load(Path("set/data.yaml").read_text())
    assert {split: listing.get(split) for split in ("train", "val", "test")} == {
        "train": "images/train",
        "val": "images/val",
        "test": None,
    }
    code, err = run(capsys, images, "--recursive", "--yolo", "set", "--model", tiny_model)
    assert (code, "not written over" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--yolo-scores"], "name their folder with --yolo"),
        (
            ["--yolo", "s", "--tasks", "segment,classify"],
            "--yolo writes boxes, and answers have masks and classes alone",
        ),
    ],
)
def test_what_cannot_be_written_is_told_before_the_work(
    images: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    code, err = run(capsys, images, "--recursive", *words, "--model", tiny_model)
    assert (code, said in err, "answered" in err) == (2, True, False)


def test_two_pictures_of_one_file_end_the_run_before_it_begins(
    images: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "val" / "0.jpg").write_bytes(encode(make_picture(), "JPEG"))
    code, err = run(capsys, images, "--recursive", "--yolo", "boxes", "--model", tiny_model)
    assert (code, "would both be" in err, Path("boxes").exists()) == (2, True, False)
