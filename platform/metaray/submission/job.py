"""What runs on the cluster: `python -m metaray.submission.job train ...` checks versions, then is `metaray train ...`.

It is the first to run under whatever Python the node has: it imports only the standard library, and nothing new of it.
"""

import json
import os
import runpy
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

EXPECTS = "METARAY_EXPECTS"
"""Environment variable with the versions of the machine that submitted, as JSON."""
HOME = "~/metaray"
"""Folder on the head node for what is to outlive a job, but need not outlive the node."""
# How many parts of a version must agree: Ray checks its own in full, torch promises nothing across minor versions.
PARTS = {"python": 2, "ray": 9, "torch": 2, "metaray": 9}


def versions() -> dict[str, str]:
    """Those that this Python imports; "none" where it has no such package."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("ray", "torch", "metaray"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def differing(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Which versions differ by too much, as in "torch 2.13.0 here, 2.12.1 on the cluster"."""
    return [
        f"{name} {expected[name]} here, {found[name]} on the cluster"
        for name, parts in PARTS.items()
        if name in expected and name in found and _parts(expected[name], parts) != _parts(found[name], parts)
    ]


def advice(problems: list[str]) -> str:
    """What is wrong, and what to do about it. "Here" is where `metaray submit` runs."""
    return (
        f"the cluster has other versions: {'; '.join(problems)}. Install the same on both sides; "
        "if the nodes have them in an environment of their own, name its Python: submit --python /PATH/bin/python"
    )


def at_home(argument: str) -> str:
    """An argument with the `~` of a SQLite URI replaced, as nobody else does it."""
    return argument.replace("sqlite:///~/", f"sqlite:///{Path.home()}/", 1)


def main() -> None:
    """Check, then do what the arguments say."""
    problems = differing(json.loads(os.environ.get(EXPECTS, "{}")), versions())
    if problems:
        print(f"error: {advice(problems)}", file=sys.stderr, flush=True)
        sys.exit(2)
    arguments = [at_home(argument) for argument in sys.argv[1:]]
    if arguments != sys.argv[1:]:
        Path(HOME).expanduser().mkdir(exist_ok=True)
    sys.argv[1:] = arguments
    runpy.run_module("metaray", run_name="__main__", alter_sys=True)


def _parts(version: str, count: int) -> list[str]:
    return version.partition("+")[0].split(".")[:count]


if __name__ == "__main__":
    main()
