"""How CSV files are written: what lies between cells, and what between the digits of a number."""

import csv
import re
from collections.abc import Sequence
from typing import Literal

DELIMITERS = ",;\t"
Decimal = Literal[".", ","]
"""What the digits after it are tenths and less."""

_COMMA = re.compile(r"([+-]?)(\d{1,3}(?:\.\d{3})+|\d+|)(?:,(\d+))?([eE][+-]?\d+)?")
_POINT = re.compile(r"[+-]?\d*\.\d*([eE][+-]?\d+)?")
_HINTS = re.compile(r"[+-]?(?:\d{1,3}(?:\.\d{3})+|\d*),\d+")
_DATE = re.compile(r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b")
_ANY_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\b|" + _DATE.pattern)


def delimiter_of(line: str) -> str:
    """What lies between the cells of a header: the most frequent of commas, semicolons and tabs outside quotes."""
    bare = re.sub(r'"[^"]*"', "", line)
    return max(DELIMITERS, key=bare.count)


def cells_of(line: str) -> list[str]:
    """The names in a header, trimmed."""
    return [name.strip() for name in next(csv.reader([line], delimiter=delimiter_of(line)), [])]


def with_point(text: str, decimal: Decimal) -> str:
    """A number as Python writes it; what is none keeps its text, or gets one that is none either.

    Where the comma is decimal, points stand between groups of three digits: 1.234,5 is 1234.5, and 1.5 is no number.
    """
    if decimal == ".":
        return text
    found = _COMMA.fullmatch(text.strip())
    if found is None:
        return f"{text!r}" if _POINT.fullmatch(text.strip()) else text
    sign, whole, tenths, exponent = found.groups(default="")
    return f"{sign}{whole.replace('.', '')}.{tenths}{exponent}" if whole or tenths else text


def has_comma(text: str) -> bool:
    """Whether a text may be a number with a decimal comma."""
    return _HINTS.fullmatch(text.strip()) is not None


def comma_hint(text: str, decimal: Decimal) -> str:
    """What to say of a text that is no number."""
    return "; if that is a decimal comma, say --decimal ','" if decimal == "." and has_comma(text) else ""


def is_date(text: str) -> bool:
    """Whether a text begins with a date in figures."""
    return _ANY_DATE.match(text) is not None


def dates_out_of_order(texts: Sequence[str]) -> str | None:
    """A text that begins with a date whose first part is no year, so that letters do not order it."""
    return next((text for text in texts if _DATE.match(text)), None)
