import json
import re
from collections.abc import Callable
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.fixture
def registry(trained: Any, command: Command) -> Command:
    """`metaray registry ARGUMENTS` at the session's database."""
    return lambda *arguments: command("registry", *arguments, "--tracking-uri", trained.uri)


def test_list(registry: Command) -> None:
    code, out, err = registry("list")
    assert (code, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split() == ["name", "versions", "aliases", "meta-test", "of", "the", "newest"]
    (row,) = [row for row in rows if row.split()[0] == "tiny"]
    assert "@champion -> 1" in row
    assert re.search(r"accuracy [01]\.\d{4} \+- \d\.\d{4} \(8 episodes\)$", row.rstrip())
    code, out, _ = registry("list", "--json")
    (found,) = [model for model in json.loads(out) if model["name"] == "tiny"]
    assert found["aliases"]["champion"] == 1
    assert 1 in found["versions"]


def test_show(registry: Command) -> None:
    code, out, err = registry("show", "tiny")
    assert (code, err) == (0, "")
    assert out.startswith("models:/tiny/1 @champion")
    assert "    protocol: 3-way 1-shot, 2 queries a class, transductive batch norm\n" in out
    code, out, _ = registry("show", "tiny", "--json")
    (version,) = json.loads(out)
    assert version["version"] == 1
    assert "champion" in version["aliases"]
    assert version["tags"]["algorithm"] == "maml"


def test_promote(registry: Command) -> None:
    code, out, err = registry("promote", "tiny", "1", "--alias", "staging")
    assert (code, out, err) == (0, "models:/tiny/1 is now models:/tiny@staging\n", "")
    code, out, _ = registry("promote", "tiny", "1", "--json")
    assert json.loads(out) == {"name": "tiny", "version": 1, "aliases": ["champion", "staging"]}


def test_an_empty_registry(command: Command, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaray.tracking.registry_file.read_models", lambda uri: [])
    code, out, err = command("registry", "list", "--tracking-uri", database)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 1
    assert json.loads(command("registry", "list", "--json", "--tracking-uri", database).out) == []
