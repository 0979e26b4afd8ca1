"""The page for everybody: by keyboard, by ear, on a phone, in the dark, without motion."""

from __future__ import annotations

from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.page.browser import CHELSEA, Record, texts, wait_for_answer

pytestmark = pytest.mark.full


def find_faults(page: Page) -> list[str]:
    """What axe-core calls serious or critical, with the elements that have it."""
    found = Axe().run(page).response["violations"]
    return [
        f"{fault['id']}: {node['target']}"
        for fault in found
        if fault["impact"] in {"serious", "critical"}
        for node in fault["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_no_serious_fault_before_or_after_an_answer_or_a_refusal(
    page: Page, noted: Record, scheme: Literal["light", "dark"], width: int
) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # colours on their way are no colours
    page.set_viewport_size({"width": width, "height": 740})
    assert find_faults(page) == []
    page.set_input_files("#file", CHELSEA)
    wait_for_answer(page)
    page.locator("#segments button").click()
    assert find_faults(page) == []
    page.route("**/predict?*", lambda route: route.fulfill(status=401, body="{}"))
    page.get_by_role("button", name="Sample: a cat").click()
    expect(page.get_by_label("Key of this service")).to_be_visible()
    assert find_faults(page) == []
    assert len(noted.questions) == 2


def test_axe_sees_faults_where_there_are_some(page: Page, noted: Record) -> None:
    page.evaluate("document.querySelector('label[for=file]').remove()")
    assert [fault.split(":")[0] for fault in find_faults(page)] == ["label"]
    assert noted.questions == []


def test_the_page_fits_a_narrow_phone(page: Page, noted: Record) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    for sample in ("", "an astronaut", "a cat", "a cup of coffee", "a rocket"):
        if sample:
            page.get_by_role("button", name=f"Sample: {sample}").click()
            page.wait_for_timeout(300)
            wait_for_answer(page)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.evaluate("document.getElementById('canvas').getBoundingClientRect().right") <= 360
    assert len(noted.questions) == 4


def test_a_phone_offers_its_camera_for_a_photo(chromium: Browser, url: str) -> None:
    context = chromium.new_context(has_touch=True, is_mobile=True, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(url)
    photo = page.get_by_label("Take a photo")
    expect(photo).to_be_visible()
    assert photo.get_attribute("capture") == "environment"
    photo.set_input_files(CHELSEA)
    wait_for_answer(page)
    assert texts(page, "#segments")[0] == "cat 84 %"
    context.close()


def test_the_keyboard_reaches_everything_in_the_order_of_the_page(page: Page, noted: Record) -> None:
    page.set_input_files("#file", CHELSEA)
    wait_for_answer(page)
    page.evaluate("document.activeElement.blur()")
    met: list[str] = []
    for _ in range(22):
        page.keyboard.press("Tab")
        met.append(
            page.evaluate(
                """() => {
                  const element = document.activeElement;
                  const { id, dataset, textContent } = element;
                  if (getComputedStyle(element).outlineStyle === "none") return "its focus is not seen";
                  return id || dataset.sample || dataset.take || textContent.trim().slice(0, 5);
                }"""
            )
        )
    links = ["API d", "Model", "Metri", "Ready"]
    samples = ["astronaut.jpg", "chelsea.jpg", "coffee.jpg", "rocket.jpg"]
    results = ["opacity", "threshold", "cat84", "boxes", "curl ", "copy", "json", "mask", "overlay", "picture", "curl "]
    assert met[:21] == [*links, "file", "camera", *samples, *results]

    page.locator("#threshold").focus()
    page.keyboard.press("End")
    assert page.locator("#threshold-value").inner_text() == "100 %"
    page.get_by_role("button", name="Sample: a rocket").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#summary")).not_to_contain_text("cat")
    assert len(noted.questions) == 2


def test_results_are_read_aloud(page: Page, noted: Record) -> None:
    summary = page.locator("#summary")
    assert summary.get_attribute("role") == "status"
    assert page.locator("#problem").get_attribute("role") == "alert"
    expect(summary).to_have_text("No picture yet.")
    page.set_input_files("#file", CHELSEA)
    expect(page.get_by_role("img", name="The picture with its mask and boxes")).to_have_accessible_description(
        "Segments: cat 84 %, background 16 %. 1 box: cat 46 %. Most probable class: tench 90 %."
    )
    assert len(noted.questions) == 1


def test_nothing_moves_for_those_who_asked_for_that(page: Page, noted: Record) -> None:
    button = page.locator("#camera")
    moving = "(element) => getComputedStyle(element).transitionDuration"
    assert "0.15s" in button.evaluate(moving)
    page.emulate_media(reduced_motion="reduce")
    assert button.evaluate(moving) == "0s"
    assert noted.questions == []


def test_the_commands_of_the_page_name_this_service(page: Page, noted: Record, url: str) -> None:
    assert f"curl --data-binary @photo.jpg {url}predict" in page.locator("[data-examples]").inner_text()
    for name in ("API documentation", "Model and versions", "Metrics", "Ready?"):
        link = page.get_by_role("link", name=name).get_attribute("href")
        assert page.request.get(url + str(link)).status == 200
    assert noted.questions == []
