from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import pytest

from tests.checkout import ROOT
from tests.release.version import CHANGELOG, ReleaseError, find_notes, find_versions, read_version, set_version

DAY = dt.date(2026, 12, 31)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the files that the version stands in, with something unreleased."""
    for name in find_versions():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / CHANGELOG).write_text("# Changelog\n\n## Unreleased\n\n### Added\n\n- Something.\n")
    return tmp_path


def test_the_version_is_the_same_wherever_it_stands() -> None:
    assert find_versions() == {name: {read_version()} for name in find_versions()}


def test_no_other_file_of_the_deployment_has_a_version_that_would_be_forgotten() -> None:
    places = set(find_versions())
    paths = [path for pattern in ("docker/**/*", "*.yml", "*.cff") for path in ROOT.glob(pattern) if path.is_file()]
    named = {str(path.relative_to(ROOT)) for path in paths if f"unihead:{read_version()}" in path.read_text()}
    assert named
    assert named <= places


def test_a_new_version_is_written_wherever_it_stands_and_gets_its_section(root: Path) -> None:
    set_version("9.8.7", DAY, root)
    assert find_versions(root) == {name: {"9.8.7"} for name in find_versions()}
    assert read_version(root) == "9.8.7"
    text = (root / CHANGELOG).read_text()
    assert text == "# Changelog\n\n## Unreleased\n\n## 9.8.7 - 2026-12-31\n\n### Added\n\n- Something.\n"
    assert find_notes("9.8.7", root) == "### Added\n\n- Something.\n"


@pytest.mark.parametrize(
    ("changelog", "version", "sentence"),
    [
        ("## Unreleased\n\n- Something.\n", "2026.12", "is no version"),
        ("## Unreleased\n\n## 9.8.7 - 2026-12-01\n\n- Something.\n", "9.8.7", "has a section of 9.8.7 already"),
        ("## Unreleased\n\n## 9.8.6 - 2026-12-01\n\n- Something.\n", "9.8.7", "has nothing below '## Unreleased'"),
    ],
)
def test_what_makes_no_release_is_refused_before_anything_is_written(
    root: Path, changelog: str, version: str, sentence: str
) -> None:
    (root / CHANGELOG).write_text(changelog)
    before = find_versions(root)
    with pytest.raises(ReleaseError, match=sentence):
        set_version(version, DAY, root)
    assert (root / CHANGELOG).read_text() == changelog
    assert find_versions(root) == before


@pytest.mark.parametrize(
    ("changelog", "sentence"),
    [
        ("## Unreleased\n\n- Something.\n", "no section `## 1.2.3 - DATE`"),
        ("## 1.2.3\n\n- Something.\n", "no section `## 1.2.3 - DATE`"),
        ("## 11.2.3 - 2026-12-01\n\n- Something.\n", "no section `## 1.2.3 - DATE`"),
        ("## 1.2.3 - soon\n\n- Something.\n", "says soon of 1.2.3"),
    ],
)
def test_a_version_without_a_dated_section_is_not_released(tmp_path: Path, changelog: str, sentence: str) -> None:
    (tmp_path / CHANGELOG).write_text(changelog)
    with pytest.raises(ReleaseError, match=sentence):
        find_notes("1.2.3", tmp_path)


def test_notes_end_where_the_next_version_begins(tmp_path: Path) -> None:
    (tmp_path / CHANGELOG).write_text("## 1.2.3 - 2026-12-01\n\n- New.\n\n## 1.2.2 - 2026-11-01\n\n- Old.\n")
    assert find_notes("1.2.3", tmp_path) == "- New.\n"
