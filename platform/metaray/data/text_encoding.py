"""Bytes of files that people wrote, as text, and what such texts hold."""

import csv
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

from metaray.errors import InputError

MOST_IN_CELL = 1 << 30
UTF_32 = b"\xff\xfe\0\0", b"\0\0\xfe\xff"


def decoded(raw: bytes, where: str, encoding: str | None) -> str:
    """Decode bytes as UTF-8, as UTF-16 or UTF-32 with a byte order mark, or by the given encoding.

    Bytes with NUL are decoded as UTF-8 only if no encoding is given: UTF-16 without a byte order mark looks so.

    Raises:
        InputError: If that is not possible, or there is no such encoding; the message names `where`.
    """
    check_encoding(encoding)
    if raw.startswith(UTF_32):
        own = "utf-32"
    else:
        own = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    names = [own, encoding]
    for name in reversed(names) if b"\0" in raw and own == "utf-8-sig" else names:
        try:
            if name is not None:
                return raw.decode(name)
        except UnicodeError:
            continue
    raise InputError(f"{where}: not a text in {encoding or 'UTF-8'}; --encoding names another, for instance cp1252")


def check_encoding(encoding: str | None) -> None:
    """Refuse what is no encoding of text.

    Raises:
        InputError: If there is no such encoding; the message names it.
    """
    try:
        bytes(4).decode("utf-8" if encoding is None else encoding)
    except (LookupError, ValueError):
        raise InputError(f"--encoding {encoding!r}: no encoding of text, such as cp437, cp1252 or cp932") from None


def is_blank(text: str) -> bool:
    """Whether nothing of a text is to be seen: it holds spaces, control and formatting characters alone."""
    return all(letter.isspace() or unicodedata.category(letter) in ("Cc", "Cf") for letter in text)


def halves(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which is no character; JSON can write such."""
    try:
        return not text.isascii() and not text.encode()
    except UnicodeEncodeError:
        return True


@contextmanager
def long_cells() -> Iterator[None]:
    """Within the block, cells of CSV files may be as long as whole documents, beyond Python's limit of 128 KiB."""
    before = csv.field_size_limit(MOST_IN_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)
