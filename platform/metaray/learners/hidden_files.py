"""The child process of `metaray.learners.alone`: rebuilds a learner while the files of others are hidden."""

import importlib.util
import json
import os
import site
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from metaray.errors import InputError
from metaray.json_text import parse_object
from metaray.learners.learner_file import DESCRIPTION
from metaray.learners.own_code import packages_named

CODE = (".py", ".pyc", ".pyi", ".so", ".pyd", ".dylib", ".dll", ".zip", ".egg-link", ".pth")
SYSTEM = ("/dev", "/proc", "/sys", "/etc", "/usr", "/lib", "/lib64", "/bin", "/opt")


def answer(folder: str) -> None:
    """Print, as a line of JSON, what is wrong with rebuilding the learner in `folder`, and which files were hidden."""
    # Before files are hidden: what metaray and torch read as they are imported is no concern of the user's.
    from metaray.learners.loading import load_learner

    description = parse_object((Path(folder) / DESCRIPTION).read_bytes(), where=DESCRIPTION)
    hider = _Hider([folder, *_package_folders(description)])
    for module, name in ((safetensors, "safe_open"), (safetensors.torch, "safe_open"), (torch.jit, "load")):
        setattr(module, name, _telling(getattr(module, name)))
    sys.addaudithook(hider)
    problem = ""
    try:
        load_learner(Path(folder), trust=["*"])
    except InputError as error:
        problem = str(error)
    hider.on = False
    print(json.dumps({"problem": problem, "hidden": hider.hidden}), flush=True)


def _package_folders(description: dict[str, Any]) -> list[str]:
    """The folders of the packages that the learner's code comes from; a single module has none."""
    found: list[str] = []
    for name in packages_named(description):
        spec = importlib.util.find_spec(name)
        found += map(str, (spec and spec.submodule_search_locations) or ())
    return found


def _telling(opens: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which tells of the file that it is given first: compiled code opens it without a word."""

    def told(path: Any, *arguments: Any, **options: Any) -> Any:
        sys.audit("open", path, "r", os.O_RDONLY)
        return opens(path, *arguments, **options)

    return told


class _Hider:
    """An audit hook that makes files outside some folders look as if they were not there.

    Attributes:
        on: Whether it still hides any.
        hidden: What it did hide, in order.
    """

    def __init__(self, folders: list[str]) -> None:
        places = [*folders, *SYSTEM, sys.prefix, sys.base_prefix, sys.exec_prefix, *site.getsitepackages()]
        places += [site.getusersitepackages(), *sysconfig.get_paths().values(), str(Path(__file__).parents[1])]
        real = {os.path.realpath(place) for place in places} | {os.path.abspath(place) for place in places}  # noqa: PTH100
        self._open_to = tuple(f"{place}{os.sep}" for place in real if place != os.sep)
        self._written: set[str] = set()
        self.on = True
        self.hidden: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python tells of everything that is opened before it is."""
        if event != "open" or not self.on or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))  # noqa: PTH100 - a Path keeps ".."
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        if flags & (os.O_WRONLY | os.O_CREAT):
            self._written.add(path)
            return
        known = path.endswith(CODE) or path in self._written or f"{path}{os.sep}".startswith(self._open_to)
        if known or os.path.isdir(path):  # noqa: PTH112
            return
        if path not in self.hidden:
            self.hidden.append(path)
        raise FileNotFoundError(2, "No such file or directory (it is not in the learner)", path)
