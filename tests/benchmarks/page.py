"""How long a picture takes from the drop to the screen, measured by the page itself, the forward pass left out.

Run from the repository's root, with Chromium installed: `.venv/bin/python -m tests.benchmarks.page`
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import statistics
import sys

from PIL import Image
from playwright.sync_api import Page

from service.commands.spawn import spawn_service
from service.engine.golden import GOLDEN_PICTURES
from service.machine import available_cpus
from tests.page.browser import open_chromium

SIZE = (640, 480)
_DROP = """(base64) => {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], "picture.jpg", { type: "image/jpeg" }));
  performance.clearMeasures();
  const drop = new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true });
  document.getElementById("stage").dispatchEvent(drop);
}"""
_MEASURED = """async () => {
  for (;;) {
    const [measure] = performance.getEntriesByName("unihead:on-screen");
    if (measure) return [measure.duration, measure.detail.forwardMs];
    await new Promise((later) => setTimeout(later, 5));
  }
}"""


def make_picture() -> bytes:
    """A JPEG of 640 x 480."""
    file = io.BytesIO()
    with Image.open(GOLDEN_PICTURES / "rocket.jpg") as picture:
        picture.resize(SIZE).save(file, "JPEG", quality=90)
    return file.getvalue()


def drop(page: Page, picture: bytes) -> float:
    """Milliseconds from the drop until the frame with the answer is on screen, less the forward pass."""
    page.evaluate(_DROP, base64.b64encode(picture).decode())
    duration_ms, forward_ms = page.evaluate(_MEASURED)
    return float(duration_ms) - float(forward_ms)


def main() -> int:
    """Print one line of JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drops", type=int, default=40)
    parser.add_argument("--warm-up", type=int, default=3, help="drops that are not counted")
    options = parser.parse_args()
    picture = make_picture()
    with spawn_service(["--log-level", "warning"]) as service, open_chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"http://{service.host}:{service.port}/")
        # What follows a JPEG's end is ignored, and makes another picture of it for the cache.
        all_ms = [drop(page, picture + str(number).encode()) for number in range(options.warm_up + options.drops)]
        counted = sorted(all_ms[options.warm_up :])
        result = {
            "drops": len(counted),
            "picture": SIZE,
            "cpus": available_cpus(),
            "median_ms": round(statistics.median(counted), 1),
            "p95_ms": round(statistics.quantiles(counted, n=20)[-1], 1),
            "max_ms": round(counted[-1], 1),
            "first_ms": round(all_ms[0], 1),
            "browser": browser.version,
        }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
