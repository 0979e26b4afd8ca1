"""What is taken away from the page: a command that works, and files."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Page

from tests.page.browser import CHELSEA, Record, take, texts, wait_for_answer

pytestmark = pytest.mark.full


def run(command: str, folder: Path) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, check=True, timeout=30
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("name", ["photo.jpg", "the cat's $HOME, 2.jpg", "-.jpg", "katze ü.jpg"])
def test_the_command_for_a_file_asks_the_same(page: Page, noted: Record, tmp_path: Path, name: str) -> None:
    shutil.copy(CHELSEA, tmp_path / name)
    page.set_input_files("#file", tmp_path / name)
    wait_for_answer(page)
    page.locator("#threshold").fill("20")
    page.get_by_role("button", name="Copy as curl").click()
    page.get_by_text("Copied.").wait_for()
    command = page.evaluate("navigator.clipboard.readText()")
    assert command == page.locator("#curl").inner_text()
    answer = run(command, tmp_path)
    assert [one["label"] for one in answer["detections"]] == [text.split(" ")[0] for text in texts(page, "#boxes")]
    assert len(noted.questions) == 1


def test_the_command_for_a_sample_needs_no_file(page: Page, noted: Record, tmp_path: Path) -> None:
    page.get_by_role("button", name="Sample: a cat").click()
    wait_for_answer(page)
    answer = run(page.locator("#curl").inner_text(), tmp_path)
    assert answer["image"] == {"width": 451, "height": 300}
    assert len(noted.questions) == 1


def test_the_command_can_be_copied_by_hand_where_pages_may_not_copy(page: Page, url: str) -> None:
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.goto(url)
    page.set_input_files("#file", CHELSEA)
    wait_for_answer(page)
    page.get_by_role("button", name="Copy as curl").click()
    page.get_by_text("Selected; copy it with the keyboard.").wait_for()
    assert page.evaluate("getSelection().toString()") == page.locator("#curl").inner_text()


def test_the_answer_its_mask_the_overlay_and_the_picture_are_files(page: Page, noted: Record, url: str) -> None:
    page.set_input_files("#file", CHELSEA)
    wait_for_answer(page)
    name, content = take(page, "JSON")
    assert name == "chelsea.json"
    answer = httpx.post(f"{url}predict?score_threshold=0.05", content=CHELSEA.read_bytes()).json()
    assert json.loads(content) | {"timing_ms": None} == answer | {"timing_ms": None}

    name, content = take(page, "Mask PNG")
    assert name == "chelsea-mask.png"
    with Image.open(io.BytesIO(content)) as mask:
        assert (mask.format, mask.mode, mask.size) == ("PNG", "P", (451, 300))
        assert mask.getpixel((225, 130)) == 8

    page.locator("#opacity").fill("100")
    name, content = take(page, "Overlay PNG")
    assert name == "chelsea-overlay.png"
    with Image.open(io.BytesIO(content)) as overlay:
        assert (overlay.format, overlay.size) == ("PNG", (451, 300))
        assert len(set(overlay.convert("RGB").crop((200, 100, 250, 150)).get_flattened_data())) == 1

    assert take(page, "Picture") == ("chelsea.jpg", CHELSEA.read_bytes())
    assert len(noted.questions) == 1
