"""What the pages tell people to type, typed: in an empty folder, in the order of the page.

docs/quickstart.md, docs/guides/learners.md and the Python of README.md share a folder, as the later ones take up what
the first one leaves; each other page has its own. Blocks that say why they are not run are left out.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.glyphs import demo
from metaray.experiment.experiment import Experiment
from tests.docs.pages import ROOT, Block, blocks
from tests.patience import PATIENT_S

pytestmark = pytest.mark.slow

INSTALLS = ("make", "source", "pip", "mlflow")
"""Programs of lines that are left out: they install, or serve until they are stopped."""

FOUND = """
import shutil
from pathlib import Path
known, asked = (sorted(Path("my-task", side).glob("*/*.png")) for side in ("support", "query"))
images, labels, new_images = known, [path.parent.name for path in known], asked
shutil.copy(asked[0], "a.png"), shutil.copy(asked[1], "b.png")
"""
"""What the reader of a page has at hand: a task's images."""


def script(parts: list[Block], files: dict[str, str]) -> str:
    """The blocks as one Python program; commands become processes. `files` names blocks by their first words."""
    lines = ["import subprocess, sys"]
    for block in parts:
        if block.reason:
            continue
        name = next((name for begin, name in files.items() if block.text.startswith(begin)), None)
        if name:
            lines.append(f"open({name!r}, 'w').write({block.text!r})")
        elif block.language == "python":
            lines.append(block.text)
        elif block.language == "sh":
            lines += [f"shell({line!r})" for line in block.commands if not line.startswith(INSTALLS)]
    shell = (
        "def shell(line):\n    print('$', line, flush=True)\n"
        "    line = f'{sys.executable} -m {line}' if line.startswith('metaray ') else line\n"
        "    done = subprocess.run(line, shell=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)\n"
        "    print(done.stdout, flush=True)\n    assert done.returncode == 0, line\n"
    )
    return shell + "if __name__ == '__main__':\n" + "".join(f"    {one}\n" for one in "\n".join(lines).split("\n"))


def ran(text: str, folder: Path) -> str:
    """What a program prints in a folder that has the recipes."""
    if not (folder / "jobs").exists():
        (folder / "jobs").symlink_to(ROOT / "jobs")
    (folder / "page.py").write_text(text)
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    paths = [str(folder), str(ROOT / "platform"), environment.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=folder,
        env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=3 * PATIENT_S,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def of(page: str) -> list[Block]:
    return list(blocks(ROOT / page))


def shape(line: str) -> str:
    """A line without its figures."""
    line = re.sub(r"\b[0-9a-f]{64}\b", "#", line.strip())
    return re.sub(r"\d+([.:]\d+)*", "#", line)


def assert_said(page: str, said: str) -> None:
    """Raise unless the lines of output that a page shows are such as were printed, or the beginnings of such."""
    printed = {shape(line) for line in re.split(r"[\r\n]+", said)}
    (block, *_) = [one for one in of(page) if one.language == "text"]
    shown = {line: shape(line) for line in block.text.splitlines()}
    strange = [line for line, begin in shown.items() if not any(other.startswith(begin) for other in printed)]
    assert not strange, "\n".join([*strange, "", *sorted(printed)])


def test_the_quickstart_and_what_learners_do(tmp_path: Path) -> None:
    said = ran(script(of("docs/quickstart.md"), {}), tmp_path)
    assert_said("docs/quickstart.md", said)
    readme = [block for block in of("README.md") if block.language == "python"]
    program = script([*readme, *of("docs/guides/learners.md")], {})
    head, mark, rest = program.partition("import subprocess, sys\n")
    found = "".join(f"    {line}\n" for line in FOUND.strip().splitlines())
    ran(head + mark + found + rest, tmp_path)
    assert (tmp_path / "mine").is_dir() and (tmp_path / "my-project" / "recipes.py").is_file()


def test_the_readme_shows_what_the_demo_prints(tmp_path: Path) -> None:
    metaray = f"{sys.executable} -m metaray"
    commands = (
        f"{metaray} train jobs/glyphs.py:demo --workers 2 --samplers 2 --set num_steps=20 --promote",
        f"{metaray} data export glyphs --part meta-test --ways 20 --shots 1 --queries 3 --seed 1 --out demo-task",
        f"{metaray} adapt models:/glyphs@champion --support demo-task/support --query demo-task/query",
    )
    lines = "".join(f"subprocess.run({line!r}, shell=True, check=True)\n" for line in commands)
    assert_said("README.md", ran(f"import subprocess\n{lines}", tmp_path))


def test_own_images(tmp_path: Path) -> None:
    said = ran(script(of("docs/guides/images.md"), {}), tmp_path)
    assert "registered: models:/mine/1 (@champion)" in said and (tmp_path / "my-task.png").is_file()


def test_a_first_search(tmp_path: Path) -> None:
    assert_said("docs/guides/searching.md", ran(script(of("docs/guides/searching.md"), {}), tmp_path))
    assert (tmp_path / "best.json").is_file()


def test_an_own_kind_of_input(tmp_path: Path) -> None:
    parts = of("docs/guides/preprocessing.md")
    ran(script(parts, {"import re\n": "words.py"}), tmp_path)
    assert (tmp_path / "intents.arrow").is_file()
    words = next(block.text for block in parts if "class Words" in block.text)
    assert words.strip() in (ROOT / "tests" / "text_task" / "words.py").read_text()


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    parts = of("docs/guides/networks.md")[:2]
    (module, commands) = parts
    assert "class TinyNet" in module.text and commands.commands[0].startswith("metaray show")
    kept = Block(commands.page, commands.line, "sh", f"{commands.commands[0]}\n")
    said = ran(script([module, kept], {"from torch import nn": "my_nets.py"}), tmp_path)
    assert re.search(r"^model\.path=\W?my_nets:TinyNet", said, re.MULTILINE), said


def test_recipes(tmp_path: Path) -> None:
    """docs/guides/experiments.md and docs/tables.md."""
    for page, name in (("docs/guides/experiments.md", "first_order"), ("docs/tables.md", "visits")):
        block = next(one for one in of(page) if f"def {name}(" in one.text)
        names: dict[str, object] = {}
        exec(block.text, names)
        made = names[name]()  # type: ignore[operator]
        assert isinstance(made, Experiment) and made != demo()
