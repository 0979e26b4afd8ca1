"""A page as its parser sees it."""

from html.parser import HTMLParser

VOID_ELEMENTS = {"meta", "img", "br", "input", "link"}


class Outline(HTMLParser):
    """What the page is made of; fails on an element that is closed by another, and on an anchor that leads nowhere.

    Attributes:
        tags: all elements, in order.
        titles: text of the headings of second order.
        images: attributes of the pictures.
        rows: cells of each table row, as text.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.titles: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._open: list[str] = []
        self._ids: set[str] = set()
        self._targets: set[str] = set()
        self.feed(page)
        self.close()
        assert self._open == []
        assert self._targets <= self._ids

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if "id" in values:
            assert values["id"] not in self._ids
            self._ids.add(values["id"] or "")
        if (target := values.get("href") or "").startswith("#"):
            self._targets.add(target[1:])
        if tag == "img":
            self.images.append(values)
        if tag == "h2":
            self.titles.append("")
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag not in VOID_ELEMENTS:
            self._open.append(tag)

    # As `<rect ... />` in a drawing.
    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if "h2" in self._open:
            self.titles[-1] += data
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def row(self, *start: str) -> list[str]:
        """The first row of a table whose first cells are these."""
        return next(row for row in self.rows if tuple(row[: len(start)]) == start)
