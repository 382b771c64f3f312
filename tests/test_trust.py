"""Whose code may be imported: by name, or by name and digest, from an argument or from the environment."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from metaray.errors import InputError
from metaray.imports import TRUST_ALL, resolve
from metaray.trust import ENVIRONMENT, Untrusted, code_sha256, trust_setting

PATH = "pinned.nets:Net"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package that no process knows yet."""
    folder = tmp_path / "pinned"
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "nets.py").write_text("class Net: ...\n")
    (folder / "deep" / "more.py").write_text("MORE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pinned"]:
        monkeypatch.delitem(sys.modules, name)
    return folder


@pytest.fixture(autouse=True)
def forgotten() -> object:
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "pinned"]:
        del sys.modules[name]


def digest() -> str:
    found = code_sha256("pinned")
    assert found is not None and "pinned" not in sys.modules, "found without importing it"
    return found


def test_the_environment_names_packages(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Untrusted, match=r"say so: trust=\['pinned'\], or --trust pinned, or, .*: METARAY_TRUST=pinned"):
        resolve(PATH, trust=())
    monkeypatch.setenv(ENVIRONMENT, "other")
    with pytest.raises(Untrusted):
        resolve(PATH, trust=["another"])
    monkeypatch.setenv(ENVIRONMENT, "other, pinned")
    assert resolve(PATH, trust=["another"]).__name__ == "Net"


@pytest.mark.parametrize("mark", ["@", ":"])
@pytest.mark.parametrize("length", [64, 16])
def test_a_digest_pins_the_code(length: int, mark: str, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, f"pinned{mark}{digest()[:length]}")
    assert resolve(PATH, trust=()).__name__ == "Net"


@pytest.mark.parametrize("where", ["environment", "argument"])
def test_changed_code_is_refused_with_both_digests(where: str, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest()
    (package / "deep" / "more.py").write_text("MORE = 2\n")
    after = digest()
    words = [f"pinned{'@' if where == 'environment' else ':'}{before}"]
    if where == "environment":
        monkeypatch.setenv(ENVIRONMENT, words[0])
    with pytest.raises(InputError, match=f"its Python files is {after}, trusted is {before}"):
        resolve(PATH, trust=words if where == "argument" else ())
    assert "pinned" not in sys.modules, "not even imported"
    assert resolve(PATH, trust=[*words, f"pinned@{after}"]).__name__ == "Net"


def test_an_argument_goes_before_the_environment(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, f"pinned@{'0' * 64}")
    for trust in (["pinned"], [TRUST_ALL]):
        assert resolve(PATH, trust=trust).__name__ == "Net"


def test_what_is_imported_is_known_by_what_it_was(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest()
    monkeypatch.setenv(ENVIRONMENT, f"pinned@{before}")
    resolve(PATH, trust=())
    (package / "nets.py").write_text("class Net: other = True\n")
    assert code_sha256("pinned") == before
    assert not hasattr(resolve(PATH, trust=()), "other"), "it is still the code that was trusted"


CHANGES: dict[str, Callable[[Path], object]] = {
    "text": lambda folder: (folder / "nets.py").write_text("class Net: ... \n"),
    "name": lambda folder: (folder / "nets.py").rename(folder / "net.py"),
    "more": lambda folder: (folder / "more.py").write_text(""),
    "less": lambda folder: (folder / "deep" / "more.py").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_of_python_files_is_another_digest(change: Callable[[Path], object], package: Path) -> None:
    before = digest()
    change(package)
    assert digest() != before


def test_other_files_are_not_covered(package: Path, tmp_path: Path) -> None:
    before = digest()
    for name in ("weights.bin", "__pycache__/nets.pyc", ".hidden/a.py"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("x")
    assert digest() == before
    package.rename(tmp_path / "moved")
    (tmp_path / "pinned.py").write_text("class Net: ...\n")
    assert digest() != before, "a single module has the digest of its file"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("*", "METARAY_TRUST: '*' does not begin with the name of a top-level package"),
        ("a.b", "METARAY_TRUST: 'a.b' does not begin with the name"),
        ("pinned@", "METARAY_TRUST: 'pinned@': after the @ come 16 to 64 hex digits"),
        ("pinned@abc", "after the @ come 16 to 64 hex digits"),
        ("pinned:Net", "METARAY_TRUST: 'pinned:Net': after the : come 16 to 64 hex digits"),
        ("pinned@" + "x" * 64, "after the @ come 16 to 64 hex digits"),
    ],
)
def test_words_that_make_no_sense(word: str, message: str, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, word)
    with pytest.raises(InputError, match=re.escape(message)):
        resolve(PATH, trust=())


def test_a_pinned_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, f"nowhere_at_all@{'0' * 64}")
    with pytest.raises(InputError, match="trusted by a digest of its Python files, but none are found; install it"):
        resolve("nowhere_at_all:Net", trust=())


def test_what_to_set() -> None:
    assert trust_setting({"b": "", "a": "12"}) == "METARAY_TRUST=a@12,b"
