"""The version: pyproject.toml has it, other files repeat it, and CHANGELOG.md says since when."""

from __future__ import annotations

import datetime as dt
import re
import tomllib
from pathlib import Path

from tests.checkout import ROOT

CHANGELOG = "CHANGELOG.md"
_UNRELEASED = "## Unreleased\n"
# Where it stands: a file, and what is before and behind it there.
_PLACES = {
    "pyproject.toml": r'(?m)^(version = ")[^"]+(")$',
    "CITATION.cff": r"(?m)^(version: )\S+()$",
    "docker/service.Dockerfile": r'(image\.version=")[^"]+(")',
    "docker/kubernetes/deployment.yaml": r"(?m)(image: unihead:)\S+()$",
    "docker/kubernetes/inference-service.yaml": r"(?m)(image: unihead:)\S+()$",
    "docker-compose.yml": r"(:-unihead(?:-training)?:)[^}]+(\})",
}
_FORM = re.compile(r"\d+\.\d+\.\d+")


class ReleaseError(Exception):
    """A release cannot be made of what there is; says why."""


def read_version(root: Path = ROOT) -> str:
    """The version that a build has."""
    return str(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def find_versions(root: Path = ROOT) -> dict[str, set[str]]:
    """What each file that repeats the version says it is."""
    found = {}
    for name, pattern in _PLACES.items():
        text = (root / name).read_text(encoding="utf-8")
        before_and_behind = [(match.group(), match[1], match[2]) for match in re.finditer(pattern, text)]
        found[name] = {whole[len(before) : len(whole) - len(behind)] for whole, before, behind in before_and_behind}
    return found


def find_notes(version: str, root: Path = ROOT) -> str:
    """What CHANGELOG.md says about a version, without its heading.

    Raises:
        ReleaseError: it has no section of that version with a date.
    """
    text = (root / CHANGELOG).read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(version)} - (\S+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ReleaseError(
            f"{CHANGELOG} has no section `## {version} - DATE`: `make version VERSION=X.Y.Z` makes one of what is "
            "unreleased"
        )
    try:
        dt.date.fromisoformat(found[1])
    except ValueError as error:
        raise ReleaseError(f"{CHANGELOG} says {found[1]} of {version}, which is no date like 2026-12-01") from error
    return found[2].strip() + "\n"


def set_version(version: str, date: dt.date, root: Path = ROOT) -> None:
    """Write a new version wherever it stands, and make its section of what is unreleased, with a date.

    Raises:
        ReleaseError: it is no version, is there already, or nothing is unreleased; nothing is written then.
    """
    if _FORM.fullmatch(version) is None:
        raise ReleaseError(f"{version} is no version like 1.2.3")
    changelog = (root / CHANGELOG).read_text(encoding="utf-8")
    if re.search(rf"^## {re.escape(version)}\b", changelog, re.MULTILINE):
        raise ReleaseError(f"{CHANGELOG} has a section of {version} already")
    before, heading, rest = changelog.partition(_UNRELEASED)
    if "\n- " not in rest.partition("\n## ")[0]:
        raise ReleaseError(f"{CHANGELOG} has nothing below {_UNRELEASED.strip()!r} that {version} could be made of")
    (root / CHANGELOG).write_text(f"{before}{heading}\n## {version} - {date}\n{rest}", encoding="utf-8")
    for name, pattern in _PLACES.items():
        path = root / name
        text = re.sub(pattern, rf"\g<1>{version}\g<2>", path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")
