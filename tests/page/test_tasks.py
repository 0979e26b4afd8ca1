"""A model that serves some of the tasks: the page shows what it says, and nothing that is about the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from service.commands.spawn import spawn_service
from service.engine.contract import MODEL_TASKS, ModelTask
from tests.page.browser import CHELSEA, Record, pixel, take, texts, wait_for_answer
from tests.service.fakes import make_contract
from tests.service.onnx_models import write_tiny_model
from tests.service.subsets import SUBSETS

pytestmark = pytest.mark.full

# What is on screen where a task is served, beside its list.
ELEMENTS: dict[ModelTask, tuple[str, ...]] = {
    "segment": ("#segments", "#opacity", "label[for=opacity]", "[data-take=mask]"),
    "detect": ("#boxes", "#threshold", "label[for=threshold]"),
    "classify": ("#classes",),
}
WORDS: dict[ModelTask, str] = {"segment": "Segments:", "detect": "boxes:", "classify": "Most probable class:"}


@pytest.fixture(params=SUBSETS, ids="+".join)
def tasks(request: pytest.FixtureRequest) -> tuple[ModelTask, ...]:
    found: tuple[ModelTask, ...] = request.param
    return found


@pytest.fixture
def url(tmp_path: Path, tasks: tuple[ModelTask, ...]) -> Iterator[str]:
    model = write_tiny_model(tmp_path / "model.onnx", make_contract(tasks=tasks))
    with spawn_service(["--model", str(model), "--threads", "1", "--log-level", "error"]) as service:
        yield f"{service.url}/"


def test_the_page_shows_what_the_model_serves(page: Page, noted: Record, tasks: tuple[ModelTask, ...]) -> None:
    page.set_input_files("#file", CHELSEA)
    wait_for_answer(page)
    for task in MODEL_TASKS:
        for element in ELEMENTS[task]:
            expect(page.locator(element)).to_be_visible(visible=task in tasks)
        assert bool(texts(page, ELEMENTS[task][0])) == (task in tasks)
        assert (WORDS[task] in page.locator("#summary").inner_text()) == (task in tasks)
    expect(page.locator("[data-take=overlay]")).to_be_visible(visible=tasks != ("classify",))
    expect(page.locator("#problem")).to_be_hidden()
    parts = [word for word, task in (("mask", "segment"), ("boxes", "detect")) if task in tasks]
    label = f"The picture with its {' and '.join(parts)}" if parts else "The picture"
    assert page.locator("#canvas").get_attribute("aria-label") == label
    assert pixel(page, (225, 130), 451) != (0, 0, 0)
    if "detect" in tasks:
        page.locator("#threshold").fill("80")
        assert len(texts(page, "#boxes")) == 1
    assert take(page, "JSON")[0] == "chelsea.json"
    assert len(noted.questions) == 1
