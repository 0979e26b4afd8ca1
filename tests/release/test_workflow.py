"""The workflow that publishes: fired by a tag, in steps that have no more rights than they need."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.checkout import ROOT

# "on" is true in YAML 1.1.
WORKFLOW: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
JOBS: dict[str, dict[str, Any]] = WORKFLOW["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]


def test_only_a_tag_of_a_version_fires_it() -> None:
    assert WORKFLOW[True] == {"push": {"tags": ["v*"]}}
    (made,) = (step["run"] for step in JOBS["build"]["steps"] if "run" in step)
    # `make release` refuses a tag that is not of its version.
    assert re.fullmatch(r'make release PYTHON=python3\.\d+ TAG="\$GITHUB_REF_NAME"', made)


def test_publishing_needs_no_secret_but_who_it_is_and_a_maintainer_who_agrees() -> None:
    publish = JOBS["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"] == "release"
    assert [step.get("with", {}) for step in publish["steps"] if "pypi-publish" in step["uses"]] == [{}]
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()


def test_what_builds_has_no_right_to_publish() -> None:
    assert WORKFLOW["permissions"] == {}
    for name in ("build", "image-arm64"):
        assert JOBS[name]["permissions"] == {"contents": "read"}


def test_nothing_is_published_before_everything_is_made_and_signed() -> None:
    assert {name: job.get("needs") for name, job in JOBS.items()} == {
        "build": None,
        "image-arm64": None,
        "sign": ["build", "image-arm64"],
        "publish": ["sign"],
        "announce": ["publish"],
    }
    assert JOBS["image-arm64"]["runs-on"].endswith("-arm")


@pytest.mark.parametrize("used", sorted({step["uses"] for step in STEPS if "uses" in step}))
def test_actions_are_pinned_by_commit(used: str) -> None:
    assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", used)
