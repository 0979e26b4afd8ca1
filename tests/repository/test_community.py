"""The files that strangers look for keep their form."""

import re
import tomllib

import yaml

from tests.checkout import ROOT

SECTIONS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]  # keepachangelog.com, in this order
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_changelog_is_sorted_by_kind_of_change() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    titles = [release.partition("\n")[0] for release in releases]
    assert titles[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", title) for title in titles[1:])
    for release in releases:
        before, *sections = re.split(r"^### ", release, flags=re.MULTILINE)
        assert "\n- " not in before
        names = [section.partition("\n")[0] for section in sections]
        assert names == [name for name in SECTIONS if name in names]
        assert all(len(re.findall(r"^- ", section, re.MULTILINE)) > 0 for section in sections)


def test_what_is_cited_is_what_is_built() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == VERSION
    assert citation["license"] == "Apache-2.0"


def test_the_readme_is_read_in_one_go() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 150
    assert next(line for line in lines if line.startswith("!["))
