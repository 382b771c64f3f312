"""Bytes of files that people wrote, as text."""

from metaray.errors import InputError


def decoded(raw: bytes, where: str, encoding: str | None) -> str:
    """Decode bytes as UTF-8, as UTF-16 with a byte order mark, or by the given encoding.

    Raises:
        InputError: If that is not possible; the message names `where`.
    """
    utf16 = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
    for name in ("utf-16" if utf16 else "utf-8-sig", encoding):
        try:
            if name is not None:
                return raw.decode(name)
        except UnicodeDecodeError:
            continue
    raise InputError(f"{where}: not a text in {encoding or 'UTF-8'}; --encoding names another, for instance cp1252")
