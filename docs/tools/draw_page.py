"""Photograph the page with an answer: in the light, in the dark, and on a phone.

Run from the repository's root, with Chromium installed: `.venv/bin/python docs/tools/draw_page.py`
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, FloatRect, Page

sys.path.insert(0, str(Path(__file__).parents[2]))

from service.commands.spawn import spawn_service
from tests.page.browser import open_chromium, wait_for_answer

OUT = Path(__file__).parents[1] / "pictures"
DESK, PHONE = (1240, 880), (360, 740)
FLAT = 64  # colours of the files' palettes that are kept for the page's own
MARGIN = 24  # pixels below the last thing that is shown


def main() -> None:
    """Write all three pictures."""
    with spawn_service(["--log-level", "warning"]) as service, open_chromium() as browser:
        url = f"http://{service.host}:{service.port}/"
        light, dark = open_page(browser, url, "light", DESK), open_page(browser, url, "dark", DESK)
        photograph(light, "an astronaut", OUT / "page-light.png", last=".work")
        photograph(dark, "a cat", OUT / "page-dark.png", last=".work")
        phone = open_page(browser, url, "light", PHONE)
        photograph(phone, "a cup of coffee", OUT / "page-phone.png", last=".panels section:nth-of-type(2)")


def open_page(browser: Browser, url: str, scheme: Literal["light", "dark"], size: tuple[int, int]) -> Page:
    """Open the page in a theme and a window size."""
    width, height = size
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": height}, reduced_motion="reduce")
    page.goto(url)
    return page


def photograph(page: Page, sample: str, path: Path, last: str) -> None:
    """Ask about a sample, and save the page down to an element."""
    for name in ("a rocket", sample):  # the first picture warms both sides up
        page.get_by_role("button", name=f"Sample: {name}").click()
        page.wait_for_timeout(500)
        wait_for_answer(page)
    page.locator("h1").click()  # so that nothing is hovered or in focus
    page.wait_for_timeout(300)
    bottom = page.locator(last).evaluate("(element) => element.getBoundingClientRect().bottom + scrollY")
    clip = FloatRect(x=0, y=0, width=page.evaluate("innerWidth"), height=bottom + MARGIN)
    page.screenshot(path=path, full_page=True, clip=clip)
    page.close()
    with Image.open(path) as shot:
        shrink(shot.convert("RGB")).save(path, optimize=True)


def shrink(shot: Image.Image) -> Image.Image:
    """256 colours: the commonest as they are, because they are those of the page, and the photograph's as they fit."""
    colours, counts = np.unique(np.asarray(shot).reshape(-1, 3), axis=0, return_counts=True)
    flat = colours[np.argsort(-counts)[:FLAT]].ravel().tolist()
    palette = Image.new("P", (1, 1))
    palette.putpalette([*flat, *(shot.quantize(256 - FLAT, kmeans=4).getpalette() or [])])
    return shot.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


if __name__ == "__main__":
    main()
