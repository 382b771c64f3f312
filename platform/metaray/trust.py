"""The packages that may be imported besides metaray's own: by name, if wanted pinned to a digest of their code.

`name` trusts whatever is found under that name; `name@SHA256`, or `name:SHA256`, only a package whose Python files have
that digest (its first 16 hex digits or more will do). What calls metaray gives such words as `trust`; what can't, as
MLflow can't, finds them in the environment: METARAY_TRUST=name@SHA256,other.

The digest covers the names and bytes of all `*.py` files of the top-level package (of a single module its one file): no
data files, compiled modules or other packages that it imports. It is compared before the package is first imported;
what this process has imported already is known by the digest that it had then.
"""

import hashlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

from metaray.errors import InputError

TRUST_ALL = "*"
ENVIRONMENT = "METARAY_TRUST"
_PIN = re.compile(r"[0-9a-f]{16,64}")
_WORD = re.compile(r"([^@:]*)([@:]?)(.*)", re.DOTALL)
"""A package's name, and perhaps what goes before a digest."""
_imported: dict[str, tuple[ModuleType, str | None]] = {}
"""Packages that `resolve` imported, and the digest of their code then."""


class Untrusted(InputError):
    """An import path to a package outside metaray that the user has not trusted.

    Attributes:
        path: The import path, `package.module:Name`.
    """

    def __init__(self, path: str, setting: str = "") -> None:
        package = package_of(path)
        self.path = path
        super().__init__(
            f"refusing to import {path!r}: it lies outside metaray. If you trust that code, say so: "
            f"trust=[{package!r}], or --trust {package}, or, where neither can be given, as in MLflow, in the "
            f"environment: {setting or trust_setting({package: ''})}"
        )


def package_of(path: str) -> str:
    """The top-level package of an import path."""
    return path.partition(":")[0].partition(".")[0]


def packages_in(paths: Iterable[str]) -> tuple[str, ...]:
    """The packages that import paths begin with, sorted; without metaray itself."""
    return tuple(sorted({package_of(path) for path in paths} - {"metaray"}))


def trust_setting(packages: Mapping[str, str]) -> str:
    """Value of the environment variable that trusts packages, each with the digest of its code, possibly empty."""
    words = (f"{name}@{digest}" if digest else name for name, digest in sorted(packages.items()))
    return f"{ENVIRONMENT}={','.join(words)}"


def require_trusted(path: str, trust: Iterable[str]) -> None:
    """Check that the package of an import path outside metaray is trusted, by `trust` or by the environment.

    Args:
        path: The import path, `package.module:Name`.
        trust: Trusted packages, as words like those of the environment variable; "*" stands for all packages.

    Raises:
        Untrusted: If the package is not trusted.
        InputError: If the package's code has another digest than the trusted one (the message has both), or a word is
            malformed.
    """
    package, given = package_of(path), tuple(trust)
    if package == "metaray" or TRUST_ALL in given:
        return
    pins = _pins(package, given, "trust") or _pins(package, _from_environment(), ENVIRONMENT)
    if not pins:
        raise Untrusted(path)
    if "" in pins:
        return
    found = code_sha256(package)
    if found is None:
        raise InputError(
            f"refusing to import {path!r}: {package!r} is trusted by a digest of its Python files, but none are found; "
            "install it, or put its folder on PYTHONPATH"
        )
    if not any(found.startswith(pin) for pin in pins):
        raise InputError(
            f"refusing to import {path!r}: the code of {package!r} is not the one that is trusted: the SHA-256 of its "
            f"Python files is {found}, trusted is {' or '.join(pins)}. Bring that code back, or, if you trust what is "
            f"there now, say so: {trust_setting({package: found})}"
        )


def code_sha256(package: str) -> str | None:
    """SHA-256 (hex) over the Python files of a top-level package; None if none are found. Nothing is imported."""
    known = _imported.get(package)
    if known is not None and sys.modules.get(package) is known[0]:
        return known[1]
    digest = hashlib.sha256()
    files = _files(package)
    for name in sorted(files):
        content = files[name].read_bytes()
        digest.update(json.dumps([name, hashlib.sha256(content).hexdigest()]).encode())
    return digest.hexdigest() if files else None


def remember_code(package: str, digest: str | None) -> None:
    """Record the digest of a package that was just imported: that code runs, whatever becomes of its files."""
    module = sys.modules.get(package)
    if module is not None and (package not in _imported or _imported[package][0] is not module):
        _imported[package] = module, digest


def _files(package: str) -> dict[str, Path]:
    """The Python files of a package by their names within it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return {}
    if spec.submodule_search_locations is None:
        origin = Path(spec.origin or "")
        return {origin.name: origin} if origin.suffix == ".py" and origin.is_file() else {}
    found: dict[str, Path] = {}
    for root in map(Path, spec.submodule_search_locations):
        for folder, inside, names in os.walk(root):
            inside[:] = [name for name in inside if name != "__pycache__" and not name.startswith(".")]
            for path in (Path(folder, name) for name in names if name.endswith(".py")):
                found.setdefault(path.relative_to(root).as_posix(), path)
    return found


def _from_environment() -> tuple[str, ...]:
    words = tuple(word.strip() for word in os.environ.get(ENVIRONMENT, "").split(",") if word.strip())
    for word in words:
        if not _parts(word)[0].isidentifier():
            raise InputError(
                f"{ENVIRONMENT}: {word!r} does not begin with the name of a top-level package; write it as in "
                f"{trust_setting({'my_package': ''})}, or with the digest that the learner gives"
            )
    return words


def _pins(package: str, words: Iterable[str], where: str) -> list[str]:
    """The digests that are trusted of a package; an empty one stands for any."""
    pins = []
    for word in words:
        name, mark, pin = _parts(word)
        if name != package:
            continue
        if mark and not _PIN.fullmatch(pin):
            raise InputError(f"{where}: {word!r}: after the {mark} come 16 to 64 hex digits of a SHA-256")
        pins.append(pin)
    return pins


def _parts(word: str) -> tuple[str, str, str]:
    """The name in a word, the mark before its digest, and the digest; the last two are empty where there is none."""
    found = _WORD.fullmatch(word)
    assert found is not None
    return found[1], found[2], found[3]
