"""What MkDocs is told beside mkdocs.yml: pages that are made of other files, and pages that nobody listed.

Run by `make docs`, in the environment of the site alone; nothing of metaray is imported.
"""

import ast
import re
from pathlib import Path
from typing import Any

from jobs.site.public_names import FRONT_DOOR, public_names

ROOT = Path(__file__).parents[2]
COPIED = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Files of the checkout that are pages of the site, too."""
EXAMPLES = ROOT / "platform" / "metaray" / "cli" / "examples.py"
"""The examples of each command's help."""
COMMANDS = "reference/command_line.md"
INTRODUCTIONS = {
    FRONT_DOOR: "What `import metaray` offers to call: each does what the command of its name does, with the options' "
    "names as arguments. The classes that it offers have the pages of their rooms.",
    "algorithms": "How to adapt and predict, and what the outer loop differentiates.",
    "data": "Where tasks come from, and what an input is.",
    "episodes": "What one task is.",
    "experiment": "The description of a run.",
    "learners": "What the registry holds, and what people adapt.",
    "models": "Networks.",
    "optimizers": "The outer loop's optimisers.",
    "records": "What a run leaves.",
    "tasks": "What a task asks for, and how answers are judged.",
    "tracking": "Where a run's metrics and files go.",
    "tuning": "Searches.",
}


def on_config(config: Any) -> Any:
    """List the pages of the reference, one a room, and those that mkdocs.yml does not name."""
    listed = set(_paths(config["nav"]))
    folder = Path(config["docs_dir"])
    others = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.md"))
    for entry in config["nav"]:
        if "Reference" in entry:
            entry["Reference"] = [
                *entry["Reference"],
                COMMANDS,
                *({room: _page(room)} for room in sorted(public_names(), key=lambda room: (room != FRONT_DOOR, room))),
            ]
        if "Guides" in entry:
            entry["Guides"] = [*entry["Guides"], *(page for page in others if page not in listed)]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that no file in docs/ holds."""
    from mkdocs.structure.files import File  # imported here, so that tests have the rest without MkDocs

    for name, page in COPIED.items():
        files.append(File.generated(config, page, content=copied(ROOT / name)))
    files.append(File.generated(config, COMMANDS, content=commands()))
    for room, homes in public_names().items():
        files.append(File.generated(config, _page(room), content=reference(room, homes)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Name files of the checkout and folders instead of linking to them: the site has pages alone."""
    folder = (Path(config["docs_dir"]) / page.file.src_uri).parent

    def plain(found: re.Match[str]) -> str:
        target = (folder / found[2].partition("#")[0]).resolve()
        return found[1] if target.is_dir() or ROOT / "docs" not in target.parents else found[0]

    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)\s]+)\)", plain, markdown)


def reference(room: str, homes: list[str]) -> str:
    """The page of a room: what mkdocstrings makes of the docstrings of its public names."""
    title = room if room == FRONT_DOOR else f"metaray.{room}"
    parts = [f"# {title}", INTRODUCTIONS.get(room, "")]
    return "\n\n".join([*parts, *(f"::: {home}" for home in homes)]) + "\n"


def commands(file: Path = EXAMPLES) -> str:
    """The page of commands, each with the examples of its help."""
    module = ast.parse(file.read_text(encoding="utf-8"))
    (table,) = (node.value for node in module.body if isinstance(node, ast.AnnAssign) and node.value)
    parts = ["# The command line", "Each command by example. `metaray COMMAND --help` explains all of its options."]
    for command, lines in ast.literal_eval(table).items():
        parts += [f"## {command}", "\n".join(("```sh", *lines, "```"))]
    return "\n\n".join(parts) + "\n"


def copied(file: Path) -> str:
    """A file of the checkout, its links into docs/ as links between pages."""
    return re.sub(r"\]\(docs/", "](", file.read_text(encoding="utf-8"))


def _page(room: str) -> str:
    return f"reference/{room}.md"


def _paths(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [path for entry in (nav.values() if isinstance(nav, dict) else nav) for path in _paths(entry)]
