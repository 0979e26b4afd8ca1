from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from service.commands import files
from service.commands.files import STDIN, draw_overlay, find_overlay, find_pictures, read_picture
from service.commands.local import PictureError, PictureResult
from service.pictures.limits import DEFAULT_LIMITS
from tests.service.fakes import encode, make_picture

PIXELS = make_picture()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "b.jpg",
        "a.PNG",
        "c.webp",
        "d.jpeg",
        "notes.txt",
        ".hidden.jpg",
        "deep/e.jpg",
        ".git/f.jpg",
        "out/g.jpg",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "folder.jpg").mkdir()
    return tmp_path


def names(folder: Path, found: list[Path]) -> list[str]:
    return [str(path.relative_to(folder)) for path in found]


def test_a_folder_means_its_pictures_by_name(folder: Path) -> None:
    assert names(folder, find_pictures([folder], recursive=False).pictures) == ["a.PNG", "b.jpg", "c.webp", "d.jpeg"]


def test_folders_in_folders_are_looked_into_when_asked(folder: Path) -> None:
    found = names(folder, find_pictures([folder], recursive=True).pictures)
    assert found == ["a.PNG", "b.jpg", "c.webp", "d.jpeg", "deep/e.jpg", "out/g.jpg"]


def test_where_results_go_is_not_looked_into(folder: Path) -> None:
    found = names(folder, find_pictures([folder], recursive=True, leave_out=folder / "deep" / ".." / "out").pictures)
    assert "out/g.jpg" not in found
    assert "deep/e.jpg" in found


def test_files_are_taken_as_they_are_named_and_once(folder: Path) -> None:
    named = [folder / "notes.txt", folder / "missing.jpg", folder / "b.jpg", folder]
    found = names(folder, find_pictures(named, recursive=False).pictures)
    assert found == ["notes.txt", "missing.jpg", "b.jpg", "a.PNG", "c.webp", "d.jpeg"]


def test_a_loop_of_links_ends(folder: Path) -> None:
    (folder / "deep" / "loop").symlink_to(folder)
    assert "deep/e.jpg" in names(folder, find_pictures([folder], recursive=True).pictures)


# What is a picture


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.JPG", "JPEG"),
        ("a.jfif", "JPEG"),
        ("a.JPE", "JPEG"),
        ("a.mpo", "JPEG"),
        ("a.PnG", "PNG"),
        ("a.apng", "PNG"),
        ("a.WEBP", "WEBP"),
        ("a", "JPEG"),
        ("IMG_0001.jpg.part", "JPEG"),
        ("no ending.", "PNG"),
        ("a.txt", "WEBP"),
        ("a.tif", "JPEG"),
    ],
)
def test_every_ending_is_taken_whose_content_the_service_takes(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(encode(PIXELS, kind))
    found = find_pictures([tmp_path], recursive=False)
    assert (names(tmp_path, found.pictures), found.left_out) == ([name], {})


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "a.gif").write_bytes(encode(PIXELS, "GIF"))
    (tmp_path / "a.tiff").write_bytes(encode(PIXELS, "TIFF"))
    (tmp_path / "empty").touch()
    (tmp_path / "damaged.png").write_text("hello")
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "deep").mkdir()
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    found = find_pictures([tmp_path], recursive=False)
    assert names(tmp_path, found.pictures) == ["damaged.png"]
    assert {path.name: why for path, why in found.left_out.items()} == {
        "a.gif": "a GIF",
        "a.tiff": "a TIFF",
        "deep": "a folder, which --recursive looks into",
        "empty": "no picture",
        "fifo.jpg": "no regular file",
        "gone.jpg": "no regular file",
        "notes.txt": "no picture",
        "zero.jpg": "no regular file",
    }


def test_a_folder_that_cannot_be_read_is_one_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").mkdir()
    really_scan = os.scandir

    def scan(path: str) -> object:
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", path)
        return really_scan(path)

    monkeypatch.setattr(os, "scandir", scan)
    found = find_pictures([tmp_path], recursive=True)
    assert names(tmp_path, found.pictures) == ["secret"]


def test_a_name_that_no_file_can_have_is_left_to_fail() -> None:
    assert find_pictures([Path("x" * 5000)], recursive=False).pictures == [Path("x" * 5000)]
    with pytest.raises(PictureError, match="too long"):
        read_picture(Path("x" * 5000))


# What is read


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (os.mkfifo, "a FIFO"),
        (Path.mkdir, "a directory"),
        (lambda path: path.symlink_to("/dev/zero"), "a character device"),
        (lambda path: path.symlink_to("/dev/null"), "a character device"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda _: None, "No such file"),
    ],
    ids=["FIFO", "directory", "zero", "null", "loop", "missing"],
)
@pytest.mark.timeout(20)
def test_what_is_no_regular_file_is_refused_without_waiting(
    tmp_path: Path, make: Callable[[Path], object], why: str
) -> None:
    path = tmp_path / "a.jpg"
    make(path)
    with pytest.raises(PictureError, match=why) as caught:
        read_picture(path)
    assert caught.value.code == "unreadable_file"


def test_a_file_is_read_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x" * 11)
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 11)
    assert read_picture(tmp_path / "a.jpg") == b"x" * 11
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 10)
    with pytest.raises(PictureError, match="more than 10 bytes") as caught:
        read_picture(tmp_path / "a.jpg")
    assert caught.value.code == "body_too_large"
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(PictureError) as caught:
        read_picture(tmp_path / "a.jpg")
    assert caught.value.code == "empty_body"


# Where it is drawn


@pytest.mark.parametrize(
    ("picture", "overlay"),
    [
        ("x.jpg", "x.jpg"),
        ("a/x.JPEG", "a/x.JPEG"),
        ("b/x.jpg", "b/x.jpg"),
        ("x.png", "x.png.jpg"),
        ("x.png.jpg", "x.png.jpg.jpg"),
        ("x", "x.jpg.jpg"),
        ("x.jpg.png", "x.jpg.png.jpg"),
        ("../x.jpg", "_/x.jpg"),
        ("_/x.jpg", "___/x.jpg"),
        ("/a/x.jpg", "__/a/x.jpg"),
        ("_.jpg", "___.jpg"),
        (str(STDIN), "_.jpg"),
    ],
)
def test_an_overlay_is_called_as_its_picture(picture: str, overlay: str) -> None:
    assert find_overlay(Path("out"), Path(picture)) == Path("out") / overlay


def test_no_two_pictures_have_one_overlay() -> None:
    pieces = ["x", "_", "-", ".", ".jpg", ".JPEG", ".png", ".gif"]
    names = {"".join(some) for count in (1, 2, 3) for some in itertools.product(pieces, repeat=count)} - {".", ".."}
    pictures = {Path(place + name) for place in ("", "/", "../", "../../", "_/", "__/", "x/") for name in names}
    pictures.add(STDIN)
    overlays = {find_overlay(Path("out"), picture) for picture in pictures}
    assert len(overlays) == len(pictures) > 2000
    assert {path.suffix.lower() for path in overlays} == {".jpg", ".jpeg"}


def test_an_answer_about_a_picture_of_another_size_is_not_drawn(tmp_path: Path) -> None:
    result = PictureResult({"image": {"width": 47, "height": 32}}, None)
    with pytest.raises(PictureError, match="48 x 32") as caught:
        draw_overlay(encode(PIXELS), result, tmp_path / "a.jpg", DEFAULT_LIMITS)
    assert caught.value.code == "unreadable_answer"
    assert list(tmp_path.iterdir()) == []
