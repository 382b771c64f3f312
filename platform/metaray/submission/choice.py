"""Which files of a user's project go along with a job, and why the others stay."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import NamedTuple

from metaray.errors import InputError
from metaray.submission import credentials

GIT_TIMEOUT_S = 30.0
MOST_FILES = 5_000
MOST_LISTED = 1_000
SKIPPED = frozenset({"__pycache__", "build", "dist", "mlartifacts", "mlruns", "node_modules", "runs", "site-packages"})
"""Folders that are not even looked into for what is left out."""
UNTRACKED = "not tracked by git"
CREDENTIAL = "looks like a credential"
HIDDEN = "hidden"
SMALLER = "leave some out with --exclude PATTERN, or start from your recipe's own folder"


class LeftOut(NamedTuple):
    """A file that stays here.

    Attributes:
        name: Its path in the project.
        why: Reason in a few words.
    """

    name: str
    why: str


@dataclass(frozen=True)
class Project:
    """A user's project, and what of it is wanted.

    Attributes:
        folder: Folder from which recipes are named and import.
        needed: Files that a job cannot do without: the recipe, and the modules that loading it imported.
        include: Patterns of further files, relative to the folder; a name without wildcards overrides suspicions.
        exclude: Patterns of files to leave out.
    """

    folder: Path
    needed: tuple[Path, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def choose(self, package: Path) -> tuple[dict[str, Path], list[LeftOut]]:
        """Files to ship by their path in the pack, and those that stay.

        What git tracks goes along (where there is a repository), what is needed, and what is to be included. Hidden
        files and what looks like credentials do not, unless named in full; nor what lies, or leads, outside.

        Args:
            package: Folder of metaray itself, which goes along in any case.

        Raises:
            InputError: If what is needed must not go along, or a pattern fits nothing.
        """
        tracked, why = _tracked(self.folder)
        needed = {name for path in self.needed if (name := _name_in(self.folder, path)) is not None}
        wanted, excluded = self._fitting(self.include, "--include"), self._fitting(self.exclude, "--exclude")
        candidates = sorted({*tracked, *needed, *wanted})
        if len(candidates) > MOST_FILES:
            raise InputError(f"a job would take along more than {MOST_FILES} files below {self.folder}; {SMALLER}")
        own = package.resolve()
        files: dict[str, Path] = {}
        left: list[LeftOut] = []
        for name in candidates:
            path = self.folder / name
            if own in Path(os.path.realpath(path)).parents or not (path.is_file() or path.is_symlink()):
                continue  # metaray's own; or deleted here, or a submodule that is not checked out
            stays = "excluded" if name in excluded else _why_not(name, path, self._root)
            if stays in (CREDENTIAL, HIDDEN) and (name in needed or self.names(name)):
                stays = ""
            if stays and name in needed:
                raise InputError(f"{name}, which the recipe needs, cannot go along: {stays}")
            if stays:
                left.append(LeftOut(name, stays))
            else:
                files[name] = path
        for name in [name for name, path in files.items() if self._leads_to_another(path, files)]:
            if name not in needed and not self.names(name):
                left.append(LeftOut(name, "a link to a file that does not go along"))
                del files[name]
        others = (name for name in _others(self.folder, own) if name not in {*files, *needed, *wanted})
        left += [
            LeftOut(name, CREDENTIAL if credentials.by_name(name) else why) for name in islice(others, MOST_LISTED)
        ]
        return files, sorted(left)

    def names(self, name: str) -> bool:
        """Whether somebody has asked for exactly this file."""
        return name in {os.path.normpath(pattern) for pattern in self.include}

    @cached_property
    def _root(self) -> Path:
        return self.folder.resolve()

    def _leads_to_another(self, path: Path, files: Mapping[str, Path]) -> bool:
        """Whether the path has a link in it, to a file that does not go along under its own name."""
        target = path.resolve().relative_to(self._root).as_posix()
        return self.folder / target != path and target not in files

    def _fitting(self, patterns: Sequence[str], option: str) -> set[str]:
        """Names of the files that patterns fit; of a folder all below it."""
        found: set[str] = set()
        for pattern in patterns:
            if not pattern or PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
                raise InputError(f"{option} {pattern!r}: give a path or pattern inside {self.folder}")
            paths = [found for path in self.folder.glob(pattern) for found in _files_at(path)]
            if not paths:
                raise InputError(f"{option} {pattern!r} fits no file below {self.folder}")
            found |= {path.relative_to(self.folder).as_posix() for path in paths}
        return found


def imported(project: Path, modules: Iterable[ModuleType | None] | None = None) -> tuple[Path, ...]:
    """Files of a project that this process has imported; those of Python environments in it are not the project's.

    Args:
        project: Its folder.
        modules: All there are; by default those of this process.
    """
    environments = {Path(prefix) for prefix in (sys.prefix, sys.base_prefix)}
    found = set()
    for module in list(sys.modules.values()) if modules is None else modules:
        file = getattr(module, "__file__", None)
        if not isinstance(file, str):
            continue
        path = Path(file).absolute()
        if project in path.parents and path.is_file() and not environments.intersection(path.parents):
            below = path.relative_to(project)
            if not {"site-packages", "dist-packages"}.intersection(below.parts):
                found.add(path)
    return tuple(sorted(found))


def _why_not(name: str, path: Path, root: Path) -> str:
    """Why a file must stay here; empty if it may go along."""
    try:
        target = path.resolve(strict=True)
        name.encode()
    except (OSError, RuntimeError):
        return "a link that leads nowhere"
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if root not in target.parents:
        return "a link out of the project"
    if target.is_dir():
        return "a link to a folder"
    if name.partition("/")[0] in ("metaray", "metaray.py"):
        return "it would stand in metaray's place"
    # A link's own name may be harmless where that of its target is not.
    names = (name, target.relative_to(root).as_posix())
    if any(credentials.by_name(each) for each in names):
        return CREDENTIAL
    return HIDDEN if any(part.startswith(".") for each in names for part in each.split("/")) else ""


def _name_in(project: Path, path: Path) -> str | None:
    """The path inside the project, with slashes; None outside."""
    whole = Path(os.path.normpath(project / path))
    return whole.relative_to(project).as_posix() if project in whole.parents else None


def _files_at(path: Path) -> Iterator[Path]:
    """The file, or all below the folder; links to folders are not followed."""
    if path.is_symlink() or not path.is_dir():
        yield from [path] if path.is_file() or path.is_symlink() else []
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if name not in ("__pycache__", ".git"))
        yield from (Path(folder) / name for name in sorted(names))


def _tracked(project: Path) -> tuple[list[str], str]:
    """What git tracks below a folder, and why the rest is left out."""
    inside = _git(project, "rev-parse", "--is-inside-work-tree")
    if isinstance(inside, str):
        if any((folder / ".git").exists() for folder in (project, *project.parents)):
            return [], f"git does not say what it tracks ({inside})"
        return [], "in no git repository, and not imported by the recipe"
    found = _git(project, "ls-files", "-z", "--cached", "--recurse-submodules")
    if isinstance(found, str):
        found = _git(project, "ls-files", "-z", "--cached")
    if isinstance(found, str):
        return [], f"git does not say what it tracks ({found})"
    return [os.fsdecode(name) for name in found.split(b"\0") if name], UNTRACKED


def _others(project: Path, own: Path) -> Iterator[str]:
    """Files that nobody asked for; not those that git is to ignore, nor environments, caches and the like."""
    found = _git(project, "ls-files", "-z", "--others", "--exclude-standard")
    if isinstance(found, bytes):
        yield from sorted(os.fsdecode(name) for name in found.split(b"\0") if name)
        return
    for root, folders, names in os.walk(project):
        here = Path(root)
        folders[:] = sorted(name for name in folders if _is_looked_into(here / name, own))
        yield from ((here / name).relative_to(project).as_posix() for name in sorted(names))


def _is_looked_into(folder: Path, own: Path) -> bool:
    name = folder.name
    if name.startswith(".") or name in SKIPPED or name.endswith((".egg-info", ".dist-info")):
        return False
    return not (folder / "pyvenv.cfg").exists() and folder.resolve() != own


def _git(project: Path, *arguments: str) -> bytes | str:
    """What git prints; as text, why it prints nothing."""
    command = ["git", "-C", str(project), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=GIT_TIMEOUT_S, check=False)
    except FileNotFoundError:
        return "it is not installed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
    return done.stdout if done.returncode == 0 else lines[0]
