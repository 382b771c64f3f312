"""No link of a page or of the README leads nowhere, and every page can be reached."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.site.hooks import COMMANDS, COPIED, commands, copied, on_config
from jobs.site.public_names import public_names
from metaray.cli.examples import EXAMPLES
from tests.docs.pages import ROOT, links, pages

DOCS = ROOT / "docs"
MADE = {*COPIED.values(), COMMANDS, *(f"reference/{room}.md" for room in public_names())}
"""Pages of the site that no file of docs/ holds."""


def anchors(page: Path) -> set[str]:
    """What headings are called in addresses."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if target.is_relative_to(DOCS) and target.relative_to(DOCS).as_posix() in MADE:
            continue
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), (
            f"{page.name}: {link}: the headings are {sorted(anchors(target))}"
        )


def listed(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [one for entry in (nav.values() if isinstance(nav, dict) else nav) for one in listed(entry)]


def test_every_page_is_in_the_navigation_once() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    named = listed(config["nav"])
    assert all((DOCS / page).is_file() or page in MADE for page in named)
    whole = listed(on_config({**config, "docs_dir": str(DOCS)})["nav"])
    every = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} | MADE
    assert sorted(whole) == sorted(every)


def test_a_page_that_nobody_listed_comes_last_among_the_guides(tmp_path: Path) -> None:
    (tmp_path / "guides").mkdir()
    for name in ("index.md", "guides/new.md"):
        (tmp_path / name).write_text("# New\n")
    config = {"docs_dir": str(tmp_path), "nav": [{"Home": "index.md"}, {"Guides": [{"One": "one.md"}]}]}
    assert on_config(config)["nav"][1] == {"Guides": [{"One": "one.md"}, "guides/new.md"]}


def test_copies_link_to_pages() -> None:
    text = copied(ROOT / "CONTRIBUTING.md")
    assert "](new_algorithm.md)" in text and "](docs/" not in text


def test_every_command_is_on_the_page_of_commands() -> None:
    text = commands()
    for path, lines in EXAMPLES.items():
        assert f"\n## {path}\n\n```sh\n{lines[0]}\n" in text


def test_the_readme_is_short_and_has_what_it_must() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    assert "make demo" in text and "make test" in text and "![" not in text and "<img src=" in text
    assert "## Limits" in text and "GPU" in text.partition("## Limits")[2]
