"""When there is no answer, the page says why in words that help, and goes on working."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from service.api.keys import append_key, hash_key, make_key
from service.commands.spawn import spawn_service
from tests.page.browser import CHELSEA, Record, record, texts, wait_for_answer

pytestmark = pytest.mark.full

OVERLOADED = '{"detail": "64 pictures wait already", "code": "overloaded", "status": 503}'


def give(page: Page, name: str, body: bytes, kind: str = "image/jpeg") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": body})


@pytest.mark.parametrize(
    ("name", "kind", "body", "words"),
    [
        ("notes.txt", "text/plain", b"no picture at all", "not a picture that the service takes. The first bytes are"),
        ("empty.jpg", "image/jpeg", b"", "The request has no body"),
        ("cut.jpg", "image/jpeg", CHELSEA.read_bytes()[:9000], "The service cannot use this picture."),
    ],
)
def test_what_is_no_picture_is_told_in_words(
    page: Page, noted: Record, name: str, kind: str, body: bytes, words: str
) -> None:
    page.set_input_files("#file", CHELSEA)
    wait_for_answer(page)
    give(page, name, body, kind)
    expect(page.get_by_role("alert")).to_contain_text(words)
    expect(page.locator(".panels")).to_be_hidden()
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    page.set_input_files("#file", CHELSEA)
    wait_for_answer(page)
    expect(page.get_by_role("alert")).to_be_hidden()
    assert len(noted.questions) == 3


def test_too_many_bytes_are_told_in_words(page: Page) -> None:
    with spawn_service(["--max-body-bytes", "20000", "--log-level", "warning"]) as service:
        page.goto(f"http://{service.host}:{service.port}/")
        page.set_input_files("#file", CHELSEA)
        expect(page.get_by_role("alert")).to_contain_text("The picture is too large.")
        expect(page.get_by_role("alert")).to_contain_text("20000")


def test_an_overloaded_service_says_when_to_try_again(page: Page, noted: Record) -> None:
    headers = {"Retry-After": "7", "Content-Type": "application/problem+json"}
    page.route("**/predict?*", lambda route: route.fulfill(status=503, headers=headers, body=OVERLOADED))
    page.set_input_files("#file", CHELSEA)
    expect(page.get_by_role("alert")).to_contain_text(
        "The service cannot take the picture now. 64 pictures wait already. Try again in 7 s."
    )
    page.unroute("**/predict?*")
    page.get_by_role("button", name="Try again").click()
    wait_for_answer(page)
    assert len(noted.questions) == 2


def test_a_service_that_is_down_is_told_from_one_that_refuses(page: Page, noted: Record) -> None:
    page.route("**/predict?*", lambda route: route.abort())
    page.set_input_files("#file", CHELSEA)
    expect(page.get_by_role("alert")).to_contain_text("The service cannot be reached")
    expect(page.locator("#canvas")).to_be_visible()
    page.unroute("**/predict?*")
    page.get_by_role("button", name="Try again").click()
    wait_for_answer(page)
    assert len(noted.questions) == 2


def test_an_answer_that_is_none_is_told_in_words(page: Page, noted: Record) -> None:
    def answer_as_a_proxy(route: Route) -> None:
        route.fulfill(status=200, content_type="text/html", body="<p>Please log in</p>")

    page.route("**/predict?*", answer_as_a_proxy)
    page.set_input_files("#file", CHELSEA)
    expect(page.get_by_role("alert")).to_contain_text("not an answer of this service")
    assert len(noted.questions) == 1


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of a service that asks for keys, and one that is in force."""
    file, key = tmp_path_factory.mktemp("keys") / "unihead.keys", make_key()
    append_key(file, "page", hash_key(key))
    with spawn_service(["--keys", str(file), "--log-level", "warning"]) as service:
        yield f"http://{service.host}:{service.port}/", key


def test_a_key_is_asked_for_and_kept_for_the_tab_alone(page: Page, guarded: tuple[str, str], tmp_path: Path) -> None:
    url, key = guarded
    noted = record(page)
    page.goto(url)
    page.get_by_role("button", name="Sample: a cat").click()
    expect(page.get_by_role("alert")).to_contain_text("This service asks for a key.")
    field = page.get_by_label("Key of this service")
    expect(field).to_be_focused()
    field.fill("uh_wrong")
    field.press("Enter")
    expect(field).to_have_value("")
    expect(field).to_be_visible()

    field.fill(key)
    page.get_by_role("button", name="Use this key").click()
    wait_for_answer(page)
    expect(field).to_be_hidden()
    assert texts(page, "#segments") == ["cat 84 %", "background 16 %"]
    assert len(noted.questions) == 3

    command = page.locator("#curl").inner_text()
    assert key not in command
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env={"UNIHEAD_KEY": key, "PATH": "/usr/bin:/bin"}, capture_output=True,
        text=True, check=True, timeout=30,
    )  # fmt: skip
    assert '"label":"cat"' in done.stdout

    page.reload()
    page.get_by_role("button", name="Sample: a cat").click()
    wait_for_answer(page)
    assert page.evaluate("Object.values(sessionStorage)") == [key]
    assert page.evaluate("[Object.keys(localStorage).length, document.cookie]") == [0, ""]
    assert noted.complaints == []
