from pathlib import Path

import pytest

from training.files import CACHE_VARIABLE, NO_CACHE, find_cache_folder, open_whole, write_whole


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    for text in ("first\n", "second\n"):
        write_whole(tmp_path / "file", text)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        assert (tmp_path / "file").read_bytes() == text.encode()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "file", "new \ud800")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_two_that_write_the_same_file_each_write_one_of_their_own(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with open_whole(target, suffix=".1.tmp") as one, open_whole(target, suffix=".2.tmp") as other:
        one.write(b"one")
        other.write(b"other")
        assert not target.exists()
    assert target.read_bytes() == b"one"  # which was renamed last
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_caches_lie_where_a_variable_says_or_in_the_user_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find_cache_folder("doctor") is None  # no test may write into the caches of who runs it
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "own"))
    assert find_cache_folder("doctor") == tmp_path / "own" / "doctor"
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert find_cache_folder("doctor") == tmp_path / "xdg" / "unihead" / "doctor"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert find_cache_folder("doctor") == tmp_path / "home" / ".cache" / "unihead" / "doctor"
    monkeypatch.setenv(CACHE_VARIABLE, NO_CACHE)
    assert find_cache_folder("doctor") is None
