"""The Chinese report says what the English one says: the same figures, code and links, of the same text."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
ENGLISH, CHINESE = DOCS / "report.md", DOCS / "report.zh-TW.md"
# Of the English text that was translated. When this fails, carry the change over, then put the new hash here.
TRANSLATED = "5f2afd84f204314c291ef7dfcb74dce19143a949dbb359c5541b40fbfda9d155"


def test_the_translation_is_of_the_text_as_it_is() -> None:
    found = hashlib.sha256(ENGLISH.read_bytes()).hexdigest()
    assert found == TRANSLATED, f"docs/report.md has changed; carry it over to {CHINESE.name} and put {found} here"


def table_figures(path: Path) -> list[list[str]]:
    rows = [line for line in path.read_text().splitlines() if line.startswith("|")]
    return [sorted(re.findall(r"\d[\d.,]*\d|\d", row)) for row in rows]


def test_every_row_of_every_table_has_the_same_figures() -> None:
    english, chinese = table_figures(ENGLISH), table_figures(CHINESE)
    assert len(english) == len(chinese) > 50
    assert [sum(map(len, row)) > 0 for row in english] == [sum(map(len, row)) > 0 for row in chinese]
    for theirs, ours in zip(english, chinese, strict=True):
        missing = [figure for figure in theirs if figure not in ours and "." in figure]
        assert missing == []


def test_headings_code_and_links_are_the_same() -> None:
    english, chinese = ENGLISH.read_text(), CHINESE.read_text()
    for pattern in (r"(?m)^(#+) ", r"`([^`]+)`", r"\]\((?!report)([^)]+)\)"):
        assert sorted(re.findall(pattern, chinese)) == sorted(re.findall(pattern, english))


def test_each_page_leads_to_the_other() -> None:
    assert "(report.zh-TW.md)" in ENGLISH.read_text()
    assert "(report.md)" in CHINESE.read_text()
