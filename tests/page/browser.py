"""Debian's Chromium with the page in it, and a record of what it asked for and complained about."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from service.engine.golden import GOLDEN_PICTURES

CHELSEA = GOLDEN_PICTURES / "chelsea.jpg"
# A refusal that a test provokes is an error for the browser's console too.
_REFUSAL = re.compile(r"Failed to load resource: (the server responded with a status of (4\d\d|503)|net::ERR_FAILED)")


@dataclass
class Record:
    """What a page did.

    Attributes:
        hosts: that it sent requests to; none for data: and blob:.
        questions: addresses of its POST requests.
        complaints: errors and warnings in the console, and exceptions that nobody caught.
    """

    hosts: set[str] = field(default_factory=set)
    questions: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def require_chromium() -> None:
    """Skip the test where there is no Chromium; in CI it may not be forgotten."""
    if shutil.which("chromium") is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is missing; run .ci/install-debian-packages")
        pytest.skip("chromium is not installed (Debian package chromium)")


@contextlib.contextmanager
def open_chromium(*switches: str) -> Iterator[Browser]:
    """Run Chromium until the block ends.

    Raises:
        FileNotFoundError: it is not installed.
    """
    path = shutil.which("chromium")
    if path is None:
        raise FileNotFoundError("chromium is not installed (Debian package chromium)")
    with sync_playwright() as playwright:
        # Root gets no sandbox and containers little shared memory; the page is our own.
        switches = ("--no-sandbox", "--disable-dev-shm-usage", *switches)
        browser = playwright.chromium.launch(executable_path=path, args=switches)
        try:
            yield browser
        finally:
            browser.close()


def record(page: Page) -> Record:
    """Note from now on what a page does."""
    noted = Record()

    def note_request(method: str, url: str) -> None:
        if urlsplit(url).scheme not in {"data", "blob"}:
            noted.hosts.add(urlsplit(url).netloc)
        if method == "POST":
            noted.questions.append(url)

    def note_line(kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not _REFUSAL.match(text):
            noted.complaints.append(text)

    page.on("request", lambda request: note_request(request.method, request.url))
    page.on("console", lambda line: note_line(line.type, line.text))
    page.on("pageerror", lambda error: noted.complaints.append(str(error)))
    return noted


def wait_for_answer(page: Page) -> None:
    """Return once the newest picture has its answer on screen."""
    expect(page.locator(".panels:not([inert])")).to_be_visible(timeout=20_000)


def texts(page: Page, selector: str) -> list[str]:
    """The words of each row of a list, without line breaks."""
    return [" ".join(text.split()) for text in page.locator(f"{selector} li").all_inner_texts()]


def take(page: Page, button: str) -> tuple[str, bytes]:
    """The name and the content of a file that a button downloads."""
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    return download.value.suggested_filename, download.value.path().read_bytes()


def pixel(page: Page, place: tuple[float, float], width: int) -> tuple[int, ...]:
    """RGB of the canvas at a place (x, y) in pixels of a picture of that width, once all is drawn."""
    found: list[Any] = page.evaluate(
        """async ([x, y, width]) => {
          await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
          const canvas = document.getElementById("canvas");
          const scale = canvas.width / width;
          const one = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
          one.drawImage(canvas, -Math.round(x * scale), -Math.round(y * scale));
          return [...one.getImageData(0, 0, 1, 1).data];
        }""",
        [*place, width],
    )
    return tuple(found[:3])


def colour(page: Page, selector: str, property_name: str = "backgroundColor") -> tuple[int, ...]:
    """RGB of an element as it is styled."""
    text = page.locator(selector).evaluate(f"(element) => getComputedStyle(element).{property_name}")
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
