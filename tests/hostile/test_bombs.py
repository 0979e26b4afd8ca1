"""Generated bombs against a real server: refused at once, and nothing is left behind."""

from __future__ import annotations

import asyncio

import pytest

from service.commands.spawn import spawn_service
from tests.attacks.arsenal import make_bombs
from tests.attacks.feeding import feed_bombs
from tests.attacks.goals import require

pytestmark = pytest.mark.slow


def test_every_bomb_is_refused_at_once() -> None:
    with spawn_service(["--log-level", "error"]) as service:
        figures = asyncio.run(feed_bombs(service, make_bombs()))
    # Milliseconds are for `make hostile`, on a machine that does nothing else.
    require([one for one in figures if "percentile" not in one.goal])


def test_the_arsenal_has_every_kind() -> None:
    names = [name for name, _ in make_bombs()]
    assert len(names) == len(set(names)) >= 40
    for kind in ("JPEG", "PNG", "WebP", "GIF", "TIFF"):
        assert any(kind in name for name in names)
