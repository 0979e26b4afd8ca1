"""The documents as a site: every page is in it, every link and anchor leads somewhere, nothing comes from elsewhere."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mkdocs.exceptions import PluginError

from docs.tools.site_hooks import rewrite_links
from tests.checkout import ROOT

# What a browser fetches by itself.
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?([^\"' >]+)|<link\b[^>]*\bhref=[\"']?([^\"' >]+)"
)


def build(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """The site as `make docs` builds it."""
    # Not --quiet: it hides warnings from --strict too.
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", out],
        cwd=root,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.slow
def test_every_page_is_in_the_site(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    built = {path.relative_to(site) for path in site.rglob("*.html")}
    assert len(pages) > 20
    assert pages - built == set()
    assert {Path("model-card.html"), Path("changes.html")} <= built
    assert [path for path in site.rglob("*") if path.suffix in {".py", ".jsonl"}] == []


@pytest.mark.slow
def test_a_page_asks_no_other_server_for_anything(site: Path) -> None:
    for page in site.rglob("*.html"):
        fetched = ["".join(found) for found in FETCHED.findall(page.read_text(encoding="utf-8"))]
        assert len(fetched) > 3
        assert [one for one in fetched if re.match(r"(https?:)?//", one)] == []
    for style in site.rglob("*.css"):
        assert re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text(encoding="utf-8")) is None


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the documents that can be built."""
    root = tmp_path_factory.mktemp("copy")
    # The hooks look for files of the repository beside the folder of documents.
    shutil.copytree(ROOT / "docs", root / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", root)
    for file in ("service/models/README.md", "CHANGELOG.md", *linked_files()):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    assert build(root, root / "site").returncode == 0
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    ["[x](no-such-page.md)", "[x](data.md#no-such-heading)", "[x](../no_such_file.py)", "![x](pictures/none.png)"],
)
def test_a_link_that_leads_nowhere_stops_the_build(text: str, copy: Path, tmp_path: Path) -> None:
    page = copy / "docs/data.md"
    before = page.read_text(encoding="utf-8")
    page.write_text(f"{before}\n{text}\n", encoding="utf-8")
    assert build(copy, tmp_path / "site").returncode != 0
    page.write_text(before, encoding="utf-8")


def linked_files() -> set[str]:
    """Files outside docs/ that its pages link to."""
    found = set()
    for page in (ROOT / "docs").rglob("*.md"):
        for target in re.findall(r"\]\((\.\./[^)#\s]+)", page.read_text(encoding="utf-8")):
            path = (page.parent / target).resolve()
            if not path.is_relative_to(ROOT / "docs"):
                found.add(str(path.relative_to(ROOT)))
    return found


def test_a_link_out_of_the_documents_becomes_the_name_of_the_file() -> None:
    assert rewrite_links("[how](../Makefile)", "data.md") == "how (`Makefile`)"
    assert (
        rewrite_links("[the card](../../service/models/README.md#x)", "why/metrics.md")
        == "[the card](../model-card.md#x)"
    )
    assert rewrite_links("[here](docs/data.md#examine-the-sets)", "changes.md") == "[here](data.md#examine-the-sets)"
    fenced = "```text\n[how](../Makefile)\n```"
    assert rewrite_links(fenced, "data.md") == fenced
    with pytest.raises(PluginError, match="there is no nowhere"):
        rewrite_links("[how](../nowhere)", "data.md")
