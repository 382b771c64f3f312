"""What a check has found right is remembered, so that the next start of the same network does without it.

A memory is a file in `preflight` of metaray's cache folder. Its name is a digest of all that the checks depend on: the
network and the code that it is made by, algorithm and tasks, and the versions of torch and metaray.
"""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metaray.data.cache import cache_folder
from metaray.data.preprocessing import PREPROCESSINGS
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.imports import dump_kind
from metaray.json_text import parse_json

PREFLIGHT_FOLDER = "preflight"
INSTALLED = ("site-packages", "dist-packages")


class Memory:
    """The checks that a network has passed.

    Args:
        experiment: Experiment that it is checked for.
        network: Network as it was built.
    """

    def __init__(self, experiment: Experiment, network: nn.Module) -> None:
        self._key = _key(experiment, network)

    def once(self, what: str, check: Callable[[], None]) -> None:
        """Run a check, unless it has passed before: what it raises is not remembered."""
        if self._key is None:
            check()
            return
        path = cache_folder(PREFLIGHT_FOLDER) / f"{self._key}-{what}.json"
        # What is damaged or out of reach is as good as none.
        with contextlib.suppress(OSError, InputError):
            if parse_json(path.read_bytes(), where=path.name) == {"passed": self._key}:
                return
        check()
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside = path.with_suffix(f".{os.getpid()}")
            beside.write_text(json.dumps({"passed": self._key}))
            beside.replace(path)


def _key(experiment: Experiment, network: nn.Module) -> str | None:
    """The digest; None where code comes from no file, so that nobody could tell whether it has changed."""
    parts = (
        *network.modules(),
        experiment.model,
        experiment.algorithm,
        experiment.source,
        experiment.source.preprocessing,
    )
    named = {type(part).__module__ for part in parts}
    path = getattr(experiment.model, "path", None)
    if isinstance(path, str):
        named.add(path.partition(":")[0])
    named -= {name for name in named if name.partition(".")[0] in ("torch", "metaray")}
    if any(getattr(sys.modules.get(name), "__file__", None) is None for name in named):
        return None
    described = {
        "versions": [torch.__version__, sys.version],
        "code": [_own_code(), *_digests(_files(named))],
        "network": [repr(network), [[name, list(p.shape), p.requires_grad] for name, p in network.named_parameters()]],
        "experiment": experiment.model_dump(
            mode="json",
            include={"episodes", "model", "algorithm", "evaluation", "precision", "num_steps"},
        ),
        "tasks": [experiment.source.kind, experiment.source.feature_shape, repr(experiment.source.task)],
        "preprocessing": dump_kind(experiment.source.preprocessing, PREPROCESSINGS),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _files(named: Iterable[str]) -> set[Path]:
    """The files of loaded modules that belong to the same packages, or lie where the user's own are imported from."""
    tops, roots = set(), set()
    for name in named:
        tops.add(name.partition(".")[0])
        home = Path(str(sys.modules[name].__file__)).resolve()
        root = home.parents[name.count(".") + (home.stem == "__init__")]
        if not _is_installed(root):
            roots.add(root)
    found: set[Path] = set()
    if not tops:
        return found
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is None:
            continue
        path = _resolved(file)
        own = not _is_installed(path) and any(path.is_relative_to(root) for root in roots)
        if own or name.partition(".")[0] in tops:
            found.add(path)
    return found


@cache
def _resolved(file: str) -> Path:
    """The path without links, remembered: resolving those of thousands of modules takes tenths of a second."""
    return Path(file).resolve()


def _is_installed(path: Path) -> bool:
    return any(name in path.parts for name in INSTALLED)


def _digests(files: Iterable[Path]) -> list[list[str]]:
    found = []
    for path in sorted(files):
        with contextlib.suppress(OSError):
            found.append([str(path), hashlib.sha256(path.read_bytes()).hexdigest()])
    return found


@cache
def _own_code() -> str:
    """Digest of metaray itself: whoever works on it does not change its version each time."""
    package = Path(__file__).parents[1]
    described: list[Any] = _digests(path for path in package.rglob("*.py"))
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()
