"""The two trees that are compared: the working tree, and that of an old commit; and a process with one of them."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from jobs.benchmarks.unchanged.own_code import TREE

ROOT = Path(__file__).resolve().parents[3]
"""Of the working tree."""

NOT_INHERITED = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "METARAY_ACCESS", "PYTHONSAFEPATH")


def old_tree(commit: str, folder: Path) -> Path:
    """The tree of a commit, extracted into the new `folder`; or, where `commit` is a folder, that.

    Raises:
        ValueError: if this is no git checkout, it has no such commit, or that has no metaray.
    """
    tree = Path(commit)
    if not tree.is_dir():
        tree = folder
        with tarfile.open(fileobj=io.BytesIO(_archive(commit))) as archive:
            archive.extractall(folder, filter="data")
    if not (tree / "platform" / "metaray").is_dir():
        raise ValueError(f"{commit!r} has no platform/metaray")
    return tree.resolve()


def _archive(commit: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), "archive", "--format=tar", commit], capture_output=True)
        problem = done.stderr.decode(errors="replace").strip() if done.returncode else ""
    except FileNotFoundError:
        problem = "there is no git"
    if problem:
        raise ValueError(f"no tree of {commit!r} ({problem}); name a commit of {ROOT}, or a folder with an old tree")
    return done.stdout


def environment_of(tree: Path, cache: Path) -> dict[str, str]:
    """The environment of a process that imports metaray from `tree`, with all else as here.

    Args:
        tree: a checkout.
        cache: the folder of what metaray keeps between runs; each side has its own.
    """
    kept = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    return kept | {
        "PYTHONPATH": os.pathsep.join([str(tree / "platform"), str(ROOT)]),
        TREE: str(tree),
        "METARAY_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "MPLBACKEND": "Agg",
    }


def python(tree: Path, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start Python in `folder`, with metaray from `tree`; what it says on standard error comes through.

    Args:
        tree: a checkout.
        folder: the working directory.
        arguments: of the interpreter.
    """
    environment = environment_of(tree, folder / "cache")
    return subprocess.Popen([sys.executable, *arguments], cwd=folder, env=environment, stdout=subprocess.DEVNULL)


def ended(process: subprocess.Popen[bytes], within_s: float) -> int:
    """Its exit code; one that takes too long is killed.

    Raises:
        ValueError: if it took too long.
    """
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        raise ValueError(f"{process.args!r}: not done after {within_s:g} s") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
