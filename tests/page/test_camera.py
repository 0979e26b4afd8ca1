"""A live camera: one frame at a time, at the pace of the answers, until it is switched off."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect

from tests.page.browser import CHELSEA, Record, open_chromium, require_chromium, texts, wait_for_answer

pytestmark = pytest.mark.full

# Keeps every stream that the page is lent, so that tests see whether it was given back.
_WATCH_STREAMS = """() => {
window.streams = [];
const lend = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => {
  const stream = await lend(wanted);
  window.streams.push(stream);
  return stream;
};
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    require_chromium()
    with open_chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as browser:
        yield browser


def live_tracks(page: Page) -> int:
    live: int = page.evaluate(
        "window.streams.flatMap((stream) => stream.getTracks()).filter((track) => track.readyState === 'live').length"
    )
    return live


@pytest.fixture
def camera(page: Page, noted: Record) -> Page:
    page.evaluate(_WATCH_STREAMS)
    assert noted.questions == []
    return page


def start(page: Page) -> None:
    page.get_by_role("button", name="Start camera").click()
    expect(page.locator("#camera-label")).to_contain_text("pictures per second", timeout=20_000)


def test_frames_are_asked_about_one_at_a_time_until_it_is_stopped(camera: Page, noted: Record) -> None:
    under_way: list[int] = []
    most = [0]

    def count_up(route: Route) -> None:
        under_way.append(1)
        most[0] = max(most[0], len(under_way))
        route.continue_()

    def count_down(request: Request) -> None:
        if request.method == "POST":
            under_way.pop()

    camera.route("**/predict?*", count_up)
    camera.on("requestfinished", count_down)
    start(camera)
    camera.wait_for_timeout(1500)
    assert most[0] == 1
    assert len(noted.questions) >= 3
    assert float(camera.locator("#camera-label").inner_text().split()[0]) > 0.5
    assert live_tracks(camera) == 1
    assert camera.evaluate("document.getElementById('canvas').width > 300")

    camera.get_by_role("button", name="Stop camera").click()
    assert live_tracks(camera) == 0
    expect(camera.get_by_role("button", name="Start camera")).to_be_visible()
    asked = len(noted.questions)
    camera.wait_for_timeout(700)
    assert len(noted.questions) == asked
    expect(camera.get_by_role("alert")).to_be_hidden()


def test_a_picture_that_is_given_meanwhile_switches_it_off(camera: Page, noted: Record) -> None:
    start(camera)
    camera.set_input_files("#file", CHELSEA)
    expect(camera.locator("#segments")).to_contain_text("cat")
    wait_for_answer(camera)
    assert live_tracks(camera) == 0
    camera.wait_for_timeout(500)
    assert texts(camera, "#segments") == ["cat 84 %", "background 16 %"]
    assert len(noted.questions) >= 3


def test_a_refusal_that_will_not_pass_switches_it_off_and_says_why(camera: Page, noted: Record) -> None:
    camera.route("**/predict?*", lambda route: route.abort())
    camera.get_by_role("button", name="Start camera").click()
    expect(camera.get_by_role("alert")).to_contain_text("The service cannot be reached")
    expect(camera.get_by_role("button", name="Start camera")).to_be_visible()
    assert live_tracks(camera) == 0
    assert len(noted.questions) == 1


def test_it_waits_as_long_as_an_overloaded_service_asks_for(camera: Page, noted: Record) -> None:
    refused: list[float] = []

    def refuse_first(route: Route) -> None:
        if refused:
            route.continue_()
        else:
            refused.append(1)
            route.fulfill(status=503, headers={"Retry-After": "1"}, body="{}")

    camera.route("**/predict?*", refuse_first)
    camera.get_by_role("button", name="Start camera").click()
    expect(camera.get_by_role("alert")).to_contain_text("Try again in 1 s.")
    camera.wait_for_timeout(500)
    assert len(noted.questions) == 1
    expect(camera.locator("#camera-label")).to_contain_text("pictures per second", timeout=20_000)
    expect(camera.get_by_role("alert")).to_be_hidden()


def test_it_can_be_switched_off_before_it_is_on(camera: Page, noted: Record) -> None:
    camera.evaluate(
        """() => {
          const lend = navigator.mediaDevices.getUserMedia;
          navigator.mediaDevices.getUserMedia = async (wanted) => {
            await new Promise((later) => setTimeout(later, 400));
            return lend(wanted);
          };
        }"""
    )
    camera.get_by_role("button", name="Start camera").click()
    camera.get_by_role("button", name="Stop camera").click()
    camera.wait_for_function("() => window.streams.length === 1")
    camera.wait_for_timeout(200)
    assert live_tracks(camera) == 0
    assert noted.questions == []


def fail_with(name: str) -> str:
    return f"navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('', '{name}'); }}"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })", "secure pages only"),
        (fail_with("NotFoundError"), "There is no camera"),
        (fail_with("NotAllowedError"), "not allowed to use the camera"),
        (fail_with("AbortError"), "The camera does not work"),
    ],
)
def test_where_there_is_no_camera_the_page_says_why(page: Page, noted: Record, script: str, words: str) -> None:
    page.evaluate(f"() => {{ {script} }}")
    page.get_by_role("button", name="Start camera").click()
    expect(page.get_by_role("alert")).to_contain_text(words)
    expect(page.get_by_role("button", name="Start camera")).to_be_visible()
    assert noted.questions == []
