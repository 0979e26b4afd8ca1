from __future__ import annotations

import os

import pytest

from tests.attacks import whole
from tests.attacks.cameras import DAMAGED, WHOLE_JPEGS


@pytest.fixture(autouse=True)
def require_djpeg() -> None:
    if not whole.has_djpeg():
        if os.environ.get("CI"):
            pytest.fail("djpeg is missing; run .ci/install-debian-packages")
        pytest.skip("djpeg is not installed (Debian package libjpeg-turbo-progs)")


def test_no_prefix_passes_that_djpeg_calls_less_than_whole() -> None:
    found = whole.compare(whole.make_prefixes(step=29))
    assert found.total > 500
    assert found.taken == found.no_code == []
    # Some that end in a table between two scans, where djpeg takes the table for complete.
    assert len(found.refused) < 0.05 * found.total


def test_no_mutant_passes_that_djpeg_calls_less_than_whole_and_few_that_it_calls_whole_are_refused() -> None:
    found = whole.compare(whole.make_jpeg_mutants(800, seed=1))
    assert found.counts["whole", True] > 200
    assert found.taken == found.no_code == []
    assert len(found.refused) < 0.03 * found.total


def test_the_ends_of_twenty_pictures_are_those_that_djpeg_finds() -> None:
    for name, body in whole.make_twenty().items():
        found = whole.compare((f"{name}[:-{cut}]", body[: len(body) - cut]) for cut in range(8))
        assert found.taken == found.refused == []
        assert found.counts["whole", True] >= 3, name


def test_djpeg_agrees_with_what_cameras_are_said_to_write() -> None:
    for name, (body, _) in WHOLE_JPEGS.items():
        assert whole.ask_djpeg(body)[0] == "whole", name
    for name, body in DAMAGED.items():
        if "JPEG" in name or "restart" in name or "scan" in name:
            assert whole.ask_djpeg(body)[0] != "whole", name
