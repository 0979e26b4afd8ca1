from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from service.commands.spawn import Spawned
from tests.page.browser import Record, open_chromium, record, require_chromium


@pytest.fixture(scope="session")
def url(served: Spawned) -> str:
    return f"http://{served.host}:{served.port}/"


# For a module, not a session: while playwright runs, no other test can run an event loop.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    require_chromium()
    with open_chromium() as browser:
        yield browser


@pytest.fixture
def page(chromium: Browser, url: str) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
    page = context.new_page()
    page.set_default_timeout(15_000)
    yield page
    context.close()


@pytest.fixture
def noted(page: Page, url: str) -> Iterator[Record]:
    """The record of a page that is opened; it has asked nobody else, and nothing was wrong with it."""
    noted = record(page)
    page.goto(url)
    yield noted
    assert noted.complaints == []
    assert noted.hosts == {url.split("/")[2]}
