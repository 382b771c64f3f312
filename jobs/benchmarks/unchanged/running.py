"""Both sides of the comparison, run: plans for their processes, and what these left."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jobs.benchmarks.unchanged import own_code
from jobs.benchmarks.unchanged.experiments import OWN, Compared
from jobs.benchmarks.unchanged.outcome import Outcome, Row, compared, outcome_of
from jobs.benchmarks.unchanged.trees import ROOT, ended, python

WITHIN_S = 3600.0
"""How long one process may take for its share of the experiments."""

RANKS = ("--samplers", "2", "--cpus-per-worker", "0.3")


Command = tuple[str, list[str]]
"""A name, and arguments of `metaray`."""


def run_plan(tree: Path, folder: Path, plan: Sequence[Command]) -> None:
    """Run commands in one process, see `side`.

    Args:
        tree: that metaray comes from.
        folder: the working directory.
        plan: names, by which logs are called, and arguments.

    Raises:
        ValueError: if the process breaks off.
    """
    code = ended(begun_plan(tree, folder, plan), WITHIN_S)
    if code:
        raise ValueError(f"the process of {folder.name} ended with exit code {code}")


def begun_plan(tree: Path, folder: Path, plan: Sequence[Command]) -> subprocess.Popen[bytes]:
    """The process of a plan; arguments as for `run_plan`."""
    listed = [{"name": name, "arguments": arguments} for name, arguments in plan]
    (folder / "plan.json").write_text(json.dumps(listed, indent=1))
    return python(tree, folder, "-m", f"{__package__}.side", "plan.json")


class Share:
    """Experiments that one process of a side runs, in a folder of their own.

    Args:
        tree: that metaray comes from.
        folder: new; holds the runs, an MLflow database and logs.
        experiments: to run, in this order.
    """

    def __init__(self, tree: Path, folder: Path, experiments: Sequence[Compared]) -> None:
        self.tree, self.folder, self.experiments = tree, folder, experiments
        self.on_ranks = any(one.ranks for one in experiments)

    def run(self) -> None:
        """Run them all, in one process.

        Raises:
            ValueError: if the process did not end by itself.
        """
        self.folder.mkdir(parents=True)
        write_own_code(self.folder)
        run_plan(self.tree, self.folder, [(one.name, self._written(one)) for one in self.experiments])

    def _written(self, one: Compared) -> list[str]:
        """The experiment as a file, and the command that trains it."""
        (self.folder / f"{one.name}.json").write_text(json.dumps(one.tree, indent=1, sort_keys=True))
        recipe = ["train", f"{one.name}.json", "--run", one.name, "--no-register", "--json", "--device", "cpu"]
        return [*recipe, "--workers", str(one.ranks), *(RANKS if one.ranks else ())]

    def outcome(self, name: str) -> Outcome:
        """What an experiment left."""
        found = outcome_of(self.folder / "runs" / name)
        return found._replace(problem=self._problem(name)) if found.problem else found

    def _problem(self, name: str) -> str:
        code, err = (self.folder / "logs" / f"{name}.{kind}" for kind in ("code", "err"))
        said = err.read_text().strip().splitlines() if err.exists() else []
        told = [line for line in said if line.startswith(("error: ", "failed: "))] or said
        return f"exit code {code.read_text() if code.exists() else '-'}: {''.join(told[-1:])}"


def write_own_code(folder: Path) -> None:
    """The user's code, where experiments of this folder find it."""
    shutil.copyfile(str(own_code.__file__), folder / f"{OWN}.py")


def shares_of(side: str, tree: Path, folder: Path, experiments: Sequence[Compared], processes: int) -> list[Share]:
    """A side's experiments by process: those on ranks have one of their own, with its local Ray."""
    alone = [one for one in experiments if not one.ranks]
    dealt = [alone[place::processes] for place in range(processes)]
    dealt.append([one for one in experiments if one.ranks])
    return [Share(tree, folder / f"{side}-{place}", some) for place, some in enumerate(dealt) if some]


def both(old: Path, folder: Path, experiments: Sequence[Compared], jobs: int, *, new: Path = ROOT) -> list[Row]:
    """Run the experiments by both trees, and compare.

    Args:
        old: tree.
        folder: an empty one, for all that the runs leave.
        experiments: to run.
        jobs: processes at once, but for those with a local Ray, which run alone.
        new: tree.

    Returns:
        A line an experiment, in their order.

    Raises:
        ValueError: if a process broke off, or left files that cannot be read.
    """
    processes = max(1, jobs // 2)
    sides = [shares_of(side, tree, folder, experiments, processes) for side, tree in (("old", old), ("new", new))]
    pairs = list(zip(*sides, strict=True))
    with ThreadPoolExecutor(jobs) as pool:
        # Side by side: both in the same conditions, whatever else the machine does.
        list(pool.map(Share.run, [share for pair in pairs for share in pair if not share.on_ranks]))
    for share in (share for pair in pairs for share in pair if share.on_ranks):
        share.run()  # one after the other: two local Rays would take the room of six workers
    rows = {}
    for one, other in pairs:
        for experiment in one.experiments:
            name = experiment.name
            rows[name] = compared(name, one.outcome(name), other.outcome(name))
    return [rows[experiment.name] for experiment in experiments]
