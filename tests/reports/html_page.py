"""A page as tests look at it."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br"}
LINKS = ("src", "href", "xlink:href", "action", "srcset", "data", "poster")


class Seen(HTMLParser):
    """A page that was parsed: every tag is closed in its turn.

    Attributes:
        text: What a reader sees, and what is folded.
        tags: All that were opened.
        links: What it refers to.
        ids: All names in it.
        style: Its style sheet.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.style = "", ""
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            self.links += [value or ""] if name in LINKS else []
            self.ids += [value or ""] if name == "id" else []
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag) if tag not in VOID else None

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.style += data
        else:
            self.text += data + " "


def seen(html: str) -> Seen:
    """Parse a page, and check what all pages must hold to: no script, nothing from elsewhere, no name twice."""
    found = Seen(html)
    assert not {"script", "link", "iframe", "object", "embed", "form"}.intersection(found.tags)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in found.links), found.links
    assert "@import" not in html and "url(http" not in html and "url(//" not in html
    assert len(found.ids) == len(set(found.ids))
    found.text = " ".join(found.text.split())
    return found
