"""A learner is what its files hold: its network must be built again where nothing else is.

A process of its own rebuilds it in an empty working directory and an empty home, and there all files of others are
hidden from it: opening one fails as if it were not there (seen by `sys.addaudithook`; of compiled code only
safetensors and torch.jit are seen, others only fail where they look into the working directory or the home). What it
may read is code, the learner's own folder, what lies in the package that its code comes from, and what belongs to
Python, installed packages and the system.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaray.errors import InputError
from metaray.json_text import parse_object
from metaray.learners.learner_file import DESCRIPTION
from metaray.learners.own_code import packages_named
from metaray.manifest import checksum

PATIENT_S = 600
_passed: set[str] = set()
"""Checksums of what was rebuilt already by this process, which takes seconds."""


def require_alone(files: Mapping[str, bytes]) -> None:
    """Check that a learner's network can be built from its own files, without any other file of the user's.

    Args:
        files: Files of the learner, by name.

    Raises:
        InputError: If it cannot; the message names the missing files, or the error raised without them.
    """
    description = parse_object(files[DESCRIPTION], where=DESCRIPTION)
    if not packages_named(description) or "linked" in description:  # a linked one was asked while it was whole
        return
    numbers = {"provenance", "step", "inner_steps"}
    key = checksum({name: value for name, value in description.items() if name not in numbers})
    if key not in _passed:
        _rebuild(files)
        _passed.add(key)


def _rebuild(files: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryDirectory(prefix="metaray-alone-") as scratch:
        folder, empty, home = (Path(scratch).resolve() / name for name in ("learner", "empty", "home"))
        for place in (folder, empty, home):
            place.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        # A path of "" is the working directory, which is another one there.
        asked = {"folder": str(folder), "path": [str(Path(place).absolute()) for place in sys.path]}
        try:
            done = subprocess.run(
                [sys.executable, "-c", _CHILD],
                input=json.dumps(asked).encode(),
                cwd=empty,
                env={**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home), "TORCH_HOME": str(home)},
                capture_output=True,
                timeout=PATIENT_S,
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"rebuilding the learner's network did not end within {PATIENT_S} s") from None
    told = _told(done.stdout)
    if told is None:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise InputError(
            f"the learner's network can't be rebuilt alone: its process ended with {done.returncode}: {last}"
        )
    if told["problem"]:
        raise InputError(_problem(told["problem"].removeprefix(f"{folder}: "), told["hidden"]))


def _problem(problem: str, hidden: list[str]) -> str:
    needs = f"it opens {', '.join(map(repr, hidden))}" if hidden else "it fails in an empty working directory"
    return (
        f"building the learner's network needs files that are not in the learner: {needs}, which whoever loads it does "
        "not have. Keep the file inside your package, give its numbers as options of the model, or read it only where "
        f"it is there: frozen parameters and persistent buffers are saved with the learner. Without it: {problem}"
    )


def _told(output: bytes) -> dict[str, Any] | None:
    """The last line, which is the answer; before it comes what the user's code prints."""
    try:
        found = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        return None
    return found if isinstance(found, dict) and found.keys() == {"problem", "hidden"} else None


_CHILD = "import json, sys; asked = json.load(sys.stdin); sys.path[:] = asked['path']; " + (
    "from metaray.learners.hidden_files import answer; answer(asked['folder'])"
)
