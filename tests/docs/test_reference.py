"""The reference has a page for every public name; each has a docstring to stand there."""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import metaray
from jobs.site.hooks import INTRODUCTIONS, reference
from jobs.site.public_names import public_names

ROOMS = [
    file.parent.name
    for file in sorted(Path(metaray.__file__).parent.glob("*/__init__.py"))
    if file.parent.name != "cli"
]
PAGES = public_names()
SHOWN = {home for homes in PAGES.values() for home in homes}


def offered() -> Iterator[tuple[str, object]]:
    """Every name that is public, as Python finds it."""
    for name in metaray.__all__:
        yield f"metaray.{name}", getattr(metaray, name)
    for room in ROOMS:
        module = importlib.import_module(f"metaray.{room}")
        for name in getattr(module, "__all__", []):
            yield f"{module.__name__}.{name}", getattr(module, name)


def home(path: str, thing: object) -> str:
    """Where it is defined, which is what a page names it by."""
    if inspect.isclass(thing) or inspect.isfunction(thing):
        return f"{thing.__module__}.{thing.__qualname__}"
    return next(one for one in SHOWN if one.endswith(f".{path.rpartition('.')[2]}"))


def test_every_public_name_has_a_page() -> None:
    missing = {path for path, thing in offered() if home(path, thing) not in SHOWN}
    print(f"{len(SHOWN)} public names on {len(PAGES)} pages; without a page: {len(missing)}")
    assert not missing


def test_every_name_of_a_page_is_there_and_documented() -> None:
    for one in sorted(SHOWN):
        module, _, name = one.rpartition(".")
        thing = getattr(importlib.import_module(module), name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert (inspect.getdoc(thing) or "").strip(), f"{one} has no docstring"


def test_a_page_says_what_its_room_is_for() -> None:
    assert INTRODUCTIONS.keys() == PAGES.keys()
    text = reference("tasks", ["metaray.tasks.binary.Binary"])
    assert text.startswith("# metaray.tasks\n\n") and "\n::: metaray.tasks.binary.Binary\n" in text


def test_names_are_followed_to_where_they_are_defined(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "__init__.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from metaray.room import Thing as Thing\n"
        '__all__ = ["Thing", "call"]\ndef call(): ...\n'
    )
    (tmp_path / "room" / "__init__.py").write_text('from metaray.room.one import Thing\n__all__ = ["Thing", "KINDS"]\n')
    (tmp_path / "room" / "one.py").write_text("from metaray.room.two import Thing\n")
    (tmp_path / "room" / "two.py").write_text("class Thing: ...\n")
    found = public_names(tmp_path, beside=())
    assert found == {"room": ["metaray.room.KINDS", "metaray.room.two.Thing"], "metaray": ["metaray.call"]}
