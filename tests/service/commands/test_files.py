from __future__ import annotations

from pathlib import Path

import pytest

from service.commands.files import find_pictures


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
    assert names(folder, find_pictures([folder], recursive=False)) == ["a.PNG", "b.jpg", "c.webp", "d.jpeg"]


def test_folders_in_folders_are_looked_into_when_asked(folder: Path) -> None:
    found = names(folder, find_pictures([folder], recursive=True))
    assert found == ["a.PNG", "b.jpg", "c.webp", "d.jpeg", "deep/e.jpg", "out/g.jpg"]


def test_where_results_go_is_not_looked_into(folder: Path) -> None:
    found = names(folder, find_pictures([folder], recursive=True, leave_out=folder / "deep" / ".." / "out"))
    assert "out/g.jpg" not in found
    assert "deep/e.jpg" in found


def test_files_are_taken_as_they_are_named_and_once(folder: Path) -> None:
    named = [folder / "notes.txt", folder / "missing.jpg", folder / "b.jpg", folder]
    found = names(folder, find_pictures(named, recursive=False))
    assert found == ["notes.txt", "missing.jpg", "b.jpg", "a.PNG", "c.webp", "d.jpeg"]


def test_a_loop_of_links_ends(folder: Path) -> None:
    (folder / "deep" / "loop").symlink_to(folder)
    assert "deep/e.jpg" in names(folder, find_pictures([folder], recursive=True))
