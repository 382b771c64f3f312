"""A page as one HTML file that asks for nothing from elsewhere, and runs no script."""

import importlib.metadata
import os
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from metaray.errors import InputError
from metaray.reports.blocks import Page
from metaray.reports.settings import clean


def html_of(page: Page) -> str:
    """The file. All text is escaped, and told without the secrets of the addresses in it."""
    here = files(__package__)
    # What is no markup of this room's own charts is text, whatever it looks like.
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_told, trim_blocks=True)
    template = environment.from_string((here / "page.html").read_text(encoding="utf-8"))
    style = Markup((here / "page.css").read_text(encoding="utf-8"))
    written = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return template.render(page=page, style=style, version=importlib.metadata.version("metaray"), written=written)


def require_place(path: Path) -> None:
    """Refuse a file that cannot be written, before there is anything to write.

    Raises:
        InputError: Saying why.
    """
    if path.is_dir():
        raise InputError(f"--out {path}: a folder; name a file")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.parent}")


def write_page(page: Page, path: Path) -> None:
    """Write it whole, or nothing.

    Raises:
        InputError: If that fails.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(html_of(page), encoding="utf-8", errors="replace")
        beside.replace(path)
    except OSError as error:
        raise InputError(f"--out {path}: cannot be written: {error}") from None
    finally:
        beside.unlink(missing_ok=True)


def _told(value: object) -> object:
    return value if isinstance(value, Markup) else clean(value)
