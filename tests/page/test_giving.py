"""However a picture comes in, it is asked about once, and the page shows what the service says."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable

import httpx
import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Page, Route, expect

from tests.page.browser import CHELSEA, Record, take, texts, wait_for_answer

pytestmark = pytest.mark.full

_AS_FILE = """(base64, name) => {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], name, { type: "image/jpeg" }));
  return files;
}"""


def choose(page: Page) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_label("Choose a picture").click()
    chooser.value.set_files(CHELSEA)


def drop(page: Page) -> None:
    page.evaluate(
        f"""(base64) => {{
          const dataTransfer = ({_AS_FILE})(base64, "chelsea.jpg");
          const target = document.getElementById("stage");
          for (const type of ["dragenter", "dragover", "drop"])
            target.dispatchEvent(new DragEvent(type, {{ dataTransfer, bubbles: true, cancelable: true }}));
        }}""",
        base64.b64encode(CHELSEA.read_bytes()).decode(),
    )


def paste(page: Page) -> None:
    page.evaluate(
        f"""(base64) => {{
          const clipboardData = ({_AS_FILE})(base64, "image.jpg");
          document.body.dispatchEvent(new ClipboardEvent("paste", {{ clipboardData, bubbles: true }}));
        }}""",
        base64.b64encode(CHELSEA.read_bytes()).decode(),
    )


def click_sample(page: Page) -> None:
    page.get_by_role("button", name="Sample: a cat").click()


def percent(share: float) -> str:
    return "< 1 %" if 0 < share < 0.01 else f"{share:.0%}".replace("%", " %")


@pytest.mark.parametrize("give", [choose, drop, paste, click_sample])
def test_a_picture_is_asked_about_once_and_shown_as_the_service_answers(
    page: Page, noted: Record, url: str, give: Callable[[Page], None]
) -> None:
    give(page)
    wait_for_answer(page)

    assert len(noted.questions) == 1
    answer = httpx.post(f"{url}predict", content=CHELSEA.read_bytes()).json()
    assert texts(page, "#segments") == [f"{one['label']} {percent(one['fraction'])}" for one in answer["segments"]]
    assert texts(page, "#boxes") == [f"{one['label']} {percent(one['score'])}" for one in answer["detections"]]
    assert texts(page, "#classes") == [f"{one['label']} {percent(one['probability'])}" for one in answer["classes"]]
    said = "Segments: cat 84 %, background 16 %. 1 box: cat 46 %. Most probable class: tench 90 %."
    expect(page.locator("#summary")).to_have_text(said)


def test_milliseconds_are_those_of_the_answer(page: Page, noted: Record) -> None:
    # What follows a JPEG's end is ignored: a picture that no other test has asked about.
    body = CHELSEA.read_bytes() + b"milliseconds"
    page.set_input_files("#file", FilePayload(name="cat.jpg", mimeType="image/jpeg", buffer=body))
    wait_for_answer(page)
    timing = json.loads(take(page, "JSON")[1])["timing_ms"]
    rows = dict(text.rsplit(" ", 1) for text in texts(page, "#timing-legend"))
    assert rows["forward"] == f"{timing['forward']:.1f}"
    share = percent(timing["forward"] / timing["total"])
    sentence = f"{timing['total']:.1f} ms in the service, {share} of it in the forward pass; "
    expect(page.locator("#timing")).to_contain_text(sentence)
    widths = page.locator("#timing-bar .part").evaluate_all("(parts) => parts.map((part) => part.clientWidth)")
    assert len(widths) == len(rows)
    assert widths[list(rows).index("forward")] == pytest.approx(
        sum(widths) * timing["forward"] / timing["total"], abs=3
    )

    page.set_input_files("#file", FilePayload(name="again.jpg", mimeType="image/jpeg", buffer=body))
    expect(page.locator("#timing")).to_contain_text("Cache: hit.")
    assert "no forward pass" in page.locator("#timing").inner_text()
    assert len(noted.questions) == 2


def test_a_newer_picture_wins_over_a_late_answer(page: Page, noted: Record) -> None:
    held: list[Route] = []

    def hold_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route("**/predict?*", hold_first)
    page.get_by_role("button", name="Sample: an astronaut").click()
    expect(page.locator("#summary")).to_have_text("Asking…")
    while not held:
        page.wait_for_timeout(20)
    click_sample(page)
    wait_for_answer(page)
    held[0].continue_()
    page.wait_for_timeout(500)
    assert texts(page, "#segments") == ["cat 84 %", "background 16 %"]
    assert len(noted.questions) == 2


def test_a_page_that_was_dragged_in_is_not_opened_instead(page: Page, noted: Record) -> None:
    opened = page.url
    page.evaluate(
        """() => {
          const dataTransfer = new DataTransfer();
          dataTransfer.setData("text/plain", "hello");
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
        }"""
    )
    assert "is not a file" in page.get_by_role("alert").inner_text()
    assert page.url == opened
    assert noted.questions == []


def test_no_picture_stays_in_memory_for_its_address(page: Page, url: str) -> None:
    page.add_init_script(
        """window.addresses = 0;
        const { createObjectURL, revokeObjectURL } = URL;
        URL.createObjectURL = (blob) => (window.addresses++, createObjectURL(blob));
        URL.revokeObjectURL = (address) => (window.addresses--, revokeObjectURL(address));"""
    )
    page.goto(url)
    for name in ("Sample: a cat", "Sample: a rocket"):
        page.get_by_role("button", name=name).click()
        page.wait_for_timeout(300)
        wait_for_answer(page)
    assert page.evaluate("window.addresses") == 0


def test_names_of_classes_are_words_and_never_markup(page: Page, noted: Record, url: str) -> None:
    name = "<img src=x onerror=alert(1)>"
    answer = httpx.post(f"{url}predict", content=CHELSEA.read_bytes()).json()
    for part in ("segments", "detections", "classes"):
        answer[part][0]["label"] = name
    page.route("**/predict?*", lambda route: route.fulfill(json=answer))
    click_sample(page)
    wait_for_answer(page)
    assert texts(page, "#segments")[0] == f"{name} 84 %"
    assert texts(page, "#boxes") == [f"{name} 46 %"]
    assert texts(page, "#classes")[0] == f"{name} 90 %"
    expect(page.locator("#summary")).to_contain_text(name)
    assert len(noted.questions) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 150), (150, 1), (17, 5)])
def test_pictures_of_any_shape_are_drawn(page: Page, noted: Record, size: tuple[int, int]) -> None:
    file = io.BytesIO()
    Image.new("RGB", size, "teal").save(file, "PNG")
    page.set_input_files("#file", FilePayload(name="odd.png", mimeType="image/png", buffer=file.getvalue()))
    wait_for_answer(page)
    assert page.evaluate("Math.min(canvas.width, canvas.height)") >= 1
    assert page.evaluate("canvas.clientWidth / canvas.clientHeight >= 1") == (size[0] >= size[1])
    assert len(noted.questions) == 1
