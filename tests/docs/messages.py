"""The texts that metaray's source holds, joined as Python joins them; what is filled in at run time is a gap."""

import ast
import re
from functools import cache
from pathlib import Path

GAP = "\0"


@cache
def texts(package: Path) -> tuple[str, ...]:
    """Every string and f-string of the package."""
    found: list[str] = []
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else GAP for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def pattern(message: str) -> re.Pattern[str]:
    """What fits a text that says `message`: each `...` stands for a gap or several, with a few letters around them.

    At its ends they stand for anything.
    """
    message = message.removeprefix("...").removesuffix("...")
    return re.compile(rf"(?:[^{GAP}]{{0,20}}{GAP})+[^{GAP}]{{0,5}}".join(map(re.escape, message.split("..."))))


def occurs(message: str, package: Path) -> bool:
    """Whether some text of the package says it."""
    wanted = pattern(message)
    return any(wanted.search(text) for text in texts(package))
