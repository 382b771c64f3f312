"""Where a result comes from: code, versions, machine and command, as tags."""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from metaray.errors import redacted

PACKAGES = ("metaray", "torch", "numpy", "ray")
GIT_TIMEOUT_S = 10.0
CHECKOUT = "METARAY_CHECKOUT"
"""Environment variable of a job with the `git_state` of the submitting checkout, as JSON.

The checkout itself is not sent.
"""


def provenance(folder: Path | None = None, argv: Sequence[str] | None = None) -> dict[str, str]:
    """Tags that say how a result was made: code, versions and command.

    Args:
        folder: Folder inside the user's checkout; None takes the working directory.
        argv: The command; None takes this process's. Passwords in URIs are removed.

    Returns:
        Tags by name: `metaray.version`, `torch.version`, `numpy.version`, `ray.version` (if installed),
        `python.version`, `cpu.capability`, `command`, and in a git checkout, or a job submitted from one, `git.commit`
        and `git.dirty`.
    """
    import torch

    tags = {f"{name}.version": found for name in PACKAGES if (found := _version(name)) is not None}
    tags["torch.version"] = str(torch.__version__)  # with the build, such as +cu130
    tags["python.version"] = platform.python_version()
    tags["cpu.capability"] = torch.backends.cpu.get_cpu_capability()
    tags["command"] = _command(sys.argv if argv is None else argv)
    submitted: dict[str, str] = json.loads(os.environ.get(CHECKOUT) or "{}")
    return tags | (submitted or git_state(folder or Path.cwd()))


def _command(argv: Sequence[str]) -> str:
    """What to type for it: of metaray's own path only the name is left, as a job's lies in a folder of Ray's."""
    words = [redacted(word) for word in argv]
    *_, folder, name = "", "", *Path(*words[:1]).parts
    if name == "metaray" or (folder, name) == ("metaray", "__main__.py"):
        words[0] = "metaray"
    return shlex.join(words)


def git_state(folder: Path) -> dict[str, str]:
    """`git.commit` and `git.dirty` ("true" if a tracked file differs); empty outside a checkout or without git."""
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return {}
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"git.commit": commit, "git.dirty": "unknown" if changes is None else str(bool(changes)).lower()}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, None if it can't say."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
