"""docs/reference/ is what the code says, and the code says something about everything in it."""

from pathlib import Path

import pytest

from docs.tools.write_reference import FOLDER, make_pages
from service.app import create_app
from service.settings import Settings

pytestmark = pytest.mark.slow  # the commands of training import torch

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return make_pages()


def test_the_reference_is_that_of_the_code(pages: dict[str, str]) -> None:
    stale = [name for name, text in pages.items() if not is_same(FOLDER / name, text)]
    assert stale == [], "run `python -m docs.tools.write_reference` and commit what it changes"
    assert {path.name for path in FOLDER.iterdir()} == pages.keys()


def is_same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


def test_every_setting_metric_and_route_is_there_and_explained(pages: dict[str, str]) -> None:
    for name, field in Settings.model_fields.items():
        assert f"`UNIHEAD_{name.upper()}`" in pages["settings.md"]
        assert field.description
    app = create_app(Settings())
    for family in app.state.service.metrics.registry.collect():
        assert f"`{family.name}" in pages["metrics.md"]
        assert family.documentation
    for path, routes in app.openapi()["paths"].items():
        for method, route in routes.items():
            assert f"## {method.upper()} {path}\n" in pages["api.md"]
            assert route["summary"]
            assert route["description"]


@pytest.mark.parametrize("name", ["settings.md", "metrics.md", "contract.md"])
def test_no_line_of_these_is_without_a_meaning(name: str, pages: dict[str, str]) -> None:
    rows = [line for line in pages[name].splitlines() if line.startswith("| `")]
    assert len(rows) > 15
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_option_of_a_command_is_explained(pages: dict[str, str]) -> None:
    rows = [line for line in pages["commands.md"].splitlines() if line.startswith("| `")]
    assert len(rows) > 40
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_metric_of_ours_is_in_the_page_that_groups_them() -> None:
    text = (DOCS / "serving.md").read_text(encoding="utf-8")
    families = list(create_app(Settings()).state.service.metrics.registry.collect())
    ours = {f.name + ("_total" if f.type == "counter" else "") for f in families if f.name.startswith("unihead_")}
    assert len(ours) > 15
    assert {name for name in ours if name not in text} == set()
