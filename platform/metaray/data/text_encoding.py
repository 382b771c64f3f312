"""Bytes of files that people wrote, as text, and texts that have nothing in them."""

import unicodedata

from metaray.errors import InputError


def decoded(raw: bytes, where: str, encoding: str | None) -> str:
    """The text in some bytes: UTF-8, UTF-16 that says so, or the given encoding.

    Raises:
        InputError: If they are not; the message names `where`.
    """
    utf16 = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
    for name in ("utf-16" if utf16 else "utf-8-sig", encoding):
        try:
            if name is not None:
                return raw.decode(name)
        except UnicodeDecodeError:
            continue
    raise InputError(f"{where}: not a text in {encoding or 'UTF-8'}; --encoding names another, for instance cp1252")


def is_blank(text: str) -> bool:
    """Whether nothing of a text is to be seen: it is empty, or all spaces, control characters and marks of format."""
    return all(char.isspace() or unicodedata.category(char) in ("Cc", "Cf") for char in text)
