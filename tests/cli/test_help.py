"""Every `--help`: on a narrow terminal and on a wide one."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from metaray.cli.app import app
from metaray.cli.examples import EXAMPLES
from metaray.cli.help import folded as folded_to
from metaray.cli.options import SET_KEYS
from metaray.cli.submit import COMMANDS

ROOT: Any = typer.main.get_command(app)


def commands_of(group: Any, path: str = "metaray") -> Iterator[tuple[str, Any]]:
    yield path, group
    for name, found in getattr(group, "commands", {}).items():
        yield from commands_of(found, f"{path} {name}")


ALL = dict(commands_of(ROOT))
FRAGMENT = re.compile(r"(Of|That|Which|Whose|With|To|In|By|As|For|At|On|Likewise)\b")


@pytest.mark.parametrize("width", [60, 80, 160])
@pytest.mark.parametrize("path", ALL)
def test_help_is_as_wide_as_the_terminal_and_nothing_is_cut(
    path: str, width: int, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, err = command(*path.split()[1:], "--help")
    assert (code, err) == (0, "")
    unfolded = {
        line.removesuffix(" \\") for line in EXAMPLES[path] if " --" not in line.lstrip()
    }  # arguments alone stay on one line
    assert all(len(line) <= width or line.strip().removesuffix(" \\") in unfolded for line in out.splitlines())
    text = " ".join(out.split())
    for name, found in getattr(ALL[path], "commands", {}).items():
        assert f"{name} {' '.join(found.help.partition(chr(10) * 2)[0].split())}" in text
    for parameter in ALL[path].params:
        assert " ".join(parameter.help.split()) in text.replace("- ", "-")
    assert not re.search(r"list\[|range>|<\w+>", out)
    assert set(re.findall(r"\S*\.\.\.\S*", out)) <= {
        "PATH...",
        "[PATH...]",
        "[PLACE...]",
        "PLACE...",
        "[NAME]...",
        "[NAME...]",
        "NAME...",
        "[ARGS]...",
        "choice(A,B,...).",
    }


def test_help_of_no_terminal_is_that_of_80_columns(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    wide = command("train", "--help").out
    monkeypatch.delenv("COLUMNS")
    assert command("train", "--help").out == wide


@pytest.mark.parametrize("width", [40, 60, 76])
@pytest.mark.parametrize("path", EXAMPLES)
def test_folded_examples_say_the_same_to_a_shell(path: str, width: int) -> None:
    def said(lines: list[str]) -> list[list[str]]:
        return [shlex.split(line) for line in "\n".join(lines).replace("\\\n", " ").splitlines()]

    folded = [part for line in EXAMPLES[path] for part in folded_to(line, width)]
    assert said(folded) == said(list(EXAMPLES[path]))
    assert all(len(part) <= width or " --" not in part.lstrip() for part in folded)
    assert width < 76 or folded == list(EXAMPLES[path])


def test_help_uses_the_room_of_a_wide_terminal(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def lines(width: int) -> int:
        monkeypatch.setenv("COLUMNS", str(width))
        return len(command("train", "--help").out.splitlines())

    assert lines(80) > lines(120) > lines(200)


def test_values_are_named_by_words(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = [line.strip() for line in command("train", "--help").out.splitlines()]
    for begin in ("Usage: metaray train [OPTIONS] RECIPE", "RECIPE  The", "--workers N  ", "--set KEY=VALUE  "):
        assert any(line.startswith(begin) for line in lines), begin
    assert "[default: 2; at least 1]" in lines


@pytest.mark.parametrize("path", ALL)
def test_every_text_is_a_whole_phrase(path: str) -> None:
    found = ALL[path]
    texts = {parameter.name: parameter.help or "" for parameter in found.params} | {"": (found.help or "").strip()}
    for name, text in texts.items():
        assert re.match(r"[A-Z]", text) and not FRAGMENT.match(text) and text.endswith("."), f"{path} {name}: {text!r}"
        assert "likewise" not in text, f"{path} {name}: what is this like?"
    for parameter in found.params:
        if parameter.param_type_name == "argument" or not parameter.is_flag:
            assert parameter.metavar, f"{path} {parameter.name}"


def test_what_set_takes_is_told_wherever_it_is() -> None:
    told = {path: [p.help for p in found.params if "--set" in p.opts] for path, found in ALL.items()}
    assert {path for path, texts in told.items() if texts} == {
        "metaray show",
        "metaray train",
        "metaray tune",
        "metaray evaluate",
        "metaray compare",
    }
    assert all(text.endswith(SET_KEYS) for texts in told.values() for text in texts)


@pytest.mark.parametrize("path", ALL)
def test_every_command_has_examples_that_it_understands(path: str, command: Any) -> None:
    assert f"\n  {EXAMPLES[path][0]}\n" in command(*path.split()[1:], "--help").out
    lines = "\n".join(EXAMPLES[path]).replace("\\\n", " ").splitlines()
    assert any(shlex.split(line)[: len(path.split())] == path.split() for line in lines)
    for line in lines:
        understood(line)
    assert all(len(line) <= 76 for line in EXAMPLES[path])


def understood(line: str) -> None:
    """Raises where a command line has an option that its command lacks, or lacks an argument."""
    words = shlex.split(line)[1:]
    if words[-1] == "--help":
        assert f"metaray {' '.join(words[:-1])}" in ALL
        return
    found, path = ROOT, ["metaray"]
    while getattr(found, "commands", None):
        path.append(words.pop(0))
        found = found.commands[path[-1]]
    with found.make_context(" ".join(path), words) as context:
        if path[-1] == "submit":
            assert context.params["command"] in COMMANDS
            ROOT.commands[context.params["command"]].make_context("submitted", list(context.args))


def test_no_examples_of_commands_that_are_not() -> None:
    assert EXAMPLES.keys() == ALL.keys()
