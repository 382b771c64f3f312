"""Every block of code on the site and in the README: commands against the parser, Python against the package.

What runs them is in `test_site_runs` and in the tests that `RUN_BY` names; here each is checked by its form, quickly.
"""

import ast
import importlib
import json
import re
import shlex
import tomllib
from collections import Counter
from pathlib import Path

import pytest

import metaray
from metaray.cli.options import SET_KEYS
from metaray.experiment.experiment import Experiment
from metaray.experiment.overrides import override
from metaray.experiment.recipes import call_recipe
from tests.cli.test_help import understood
from tests.docs.pages import ROOT, Block, all_blocks
from tests.docs.running import RUN_BY, RUN_IN_ORDER

BLOCKS = all_blocks()
COMMANDS = [block for block in BLOCKS if block.language in ("", "sh")]
PYTHON = [block for block in BLOCKS if block.language == "python"]
LANGUAGES = {"", "sh", "python", "text", "diff"}
OTHERS = {"source", "pytest", "ray", "mlflow", "kill", "bash", "tensorboard"}
"""Commands that are nobody's here."""
OWN_RECIPE = re.compile(r"(my_\w+|photos)\.py:\w+|best\.json|RECIPE|recipes\.py:\w+")
"""Recipes that the reader writes."""


def test_no_block_is_of_an_unknown_kind() -> None:
    strange = [block.place for block in BLOCKS if block.language not in LANGUAGES]
    assert not strange, f"write ```sh for commands, ```python, ```text for output: {strange}"


@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: block.place)
def test_every_command_is_one(block: Block) -> None:
    assert block.commands, f"{block.place}: no command in it: output is marked ```text"
    for line in block.commands:
        check_command(line)


def check_command(line: str) -> None:
    """Raise where a line is no command that there is, with options that it has."""
    words = shlex.split(line)
    program = words[0].removeprefix(".venv/bin/")
    if program == "metaray":
        check_metaray(words)
    elif program == "make":
        targets = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets, f"{line!r}: the Makefile has no such target"
        assert all("=" in word for word in words[2:])
    elif program.startswith("python") or program == "python":
        check_python(words[1:])
    elif program == "pip":
        check_pip(words[1:])
    elif "/" in program:
        assert (ROOT / program).is_file(), f"{line!r}: there is no {program}"
    else:
        assert program in OTHERS, f"{line!r}: what is {program}? Known beside the project's own: {sorted(OTHERS)}"


def check_metaray(words: list[str]) -> None:
    understood(shlex.join(words))
    if words[1] == "submit":
        words = words[1:]
    if words[1] in ("train", "tune", "show") and len(words) > 2 and not words[2].startswith("-"):
        recipe = words[2]
        if OWN_RECIPE.fullmatch(recipe):
            return
        found, _ = call_recipe(str(ROOT / recipe))
        settings = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
        if isinstance(found, Experiment) and not any(re.search(r"=my_\w+:", one) for one in settings):
            override(found, settings)


def check_python(words: list[str]) -> None:
    if words[0] == "-c":
        ast.parse(words[1])
        return
    if words[:2] == ["-m", "pip"]:
        check_pip(words[2:])
        return
    if words[:2] in (["-m", "pytest"], ["-m", "mkdocs"]):
        return
    path = ROOT / (words[1].replace(".", "/") if words[0] == "-m" else words[0])
    files = [path] if path.suffix == ".py" else [path.with_suffix(".py"), *path.glob("*.py")]
    files = [file for file in files if file.is_file()]
    assert files, f"there is no {words[1]}"
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert option == "--help" or f'"{option}"' in text, f"{' '.join(words)!r} has no option {option}"


def check_pip(words: list[str]) -> None:
    assert words[0] == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for named in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        assert set(named.split(",")) <= extras.keys(), f"pyproject.toml has no extra {named}"


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.place)
def test_every_python_block_names_what_there_is(block: Block) -> None:
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mr":
            assert hasattr(metaray, node.attr), f"{block.place}: metaray has no {node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("metaray", "jobs"):
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name), f"{block.place}: {node.module} has no {name.name}"


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "diff"], ids=lambda block: block.place)
def test_what_a_diff_leaves_is_there(block: Block) -> None:
    file = next(line for line in reversed((ROOT / block.page).read_text().splitlines()[: block.line]) if ".py`" in line)
    text = (ROOT / file.split("`")[1]).read_text()
    kept = [line[1:] for line in block.text.splitlines() if line.startswith(" ")]
    assert kept and all(line in text for line in kept)


def test_each_python_block_is_run_by_some_test_or_says_why_not() -> None:
    """And the figures, for whoever runs this with -s."""
    by = Counter[str]()
    for block in PYTHON:
        assert block.page in RUN_IN_ORDER or block.page in RUN_BY or block.reason, (
            f"{block.place}: add the page to RUN_IN_ORDER or RUN_BY in tests/docs/running.py, or say above the block "
            "why it is not run: <!-- not run: reason -->"
        )
        by["not run, with a reason" if block.reason else "run"] += 1
    for page, tests in RUN_BY.items():
        for test in tests:
            named = Path(page).name
            assert named in (ROOT / test).read_text(), f"{test} does not name {named}"
    commands = sum(len(block.commands) for block in COMMANDS)
    ordered = [block for block in BLOCKS if block.page in RUN_IN_ORDER and block.language in ("sh", "python")]
    print(
        f"{len(BLOCKS)} blocks on {len({block.page for block in BLOCKS})} pages: {len(PYTHON)} of Python "
        f"({dict(by)}), {len(COMMANDS)} of commands ({commands} commands checked against their parsers), "
        f"{len(BLOCKS) - len(PYTHON) - len(COMMANDS)} of output and differences; "
        f"{sum(block.reason is None for block in ordered)} are run in order by test_site_runs"
    )


def test_notebooks_are_of_this_package() -> None:
    for file in sorted((ROOT / "docs").glob("*.ipynb")):
        cells = [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]
        assert cells and not any(cell["outputs"] for cell in cells), f"{file.name}: outputs are left in it"
        for cell in cells:
            text = "".join(cell["source"])
            if text.startswith("!"):
                check_command(text[1:])
            else:
                ast.parse(text)


def test_what_set_takes_is_where_the_pages_say() -> None:
    assert "--keys" in SET_KEYS
