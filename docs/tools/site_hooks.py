"""Hooks of MkDocs: pages that lie elsewhere in the repository, and links that leave docs/.

There is no address of the repository that would last, so a link to a file that is no page becomes that file's name.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# Where a page of the site lies in the repository.
ELSEWHERE = {"model-card.md": "service/models/README.md", "changes.md": "CHANGELOG.md"}
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere."""
    for page, place in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / place).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave docs/ at the page that the file is in the site, or name the file."""
    del config, files
    return rewrite_links(markdown, page.file.src_uri)


def rewrite_links(markdown: str, page: str) -> str:
    """The text of a page with its links as the site needs them.

    Args:
        markdown: of the page, fenced code included.
        page: its path below docs/.

    Raises:
        PluginError: a link names a file that is not there.
    """
    source = ELSEWHERE.get(page, f"docs/{page}")

    def rewrite(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        if ":" in target:
            return match[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        pages = {elsewhere: name for name, elsewhere in ELSEWHERE.items()} | {"README.md": "index.md"}
        inside = pages.get(place) or (place.removeprefix("docs/") if place.startswith("docs/") else None)
        if not (ROOT / place).exists():
            raise PluginError(f"{source} links to {target}, and there is no {place}")
        if inside is None or not inside.endswith((".md", ".png", ".jpg", ".ipynb")):
            return f"{text} (`{place}`)" if f"`{place}`" not in text else text
        return f"[{text}]({posixpath.relpath(inside, posixpath.dirname(page) or '.')}{anchor})"

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(rewrite, part) for part in parts)
