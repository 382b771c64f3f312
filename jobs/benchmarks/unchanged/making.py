"""Fixtures, made by one version: what later versions must be able to take up."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from jobs.benchmarks.unchanged.running import RANKS, WITHIN_S, Command, begun_plan, run_plan, write_own_code
from jobs.benchmarks.unchanged.side import STOPPED_BY_SIGNAL
from jobs.benchmarks.unchanged.supply import IMAGES, LEARNERS, QUERY, SEARCH, SIDE, STORE, SUPPORT, TASK, lay_out
from jobs.benchmarks.unchanged.trees import ended, python

POLL_S = 0.01


def train(experiment: str, run: str, *options: str) -> list[str]:
    """The command that trains an experiment under a name, or goes on with it."""
    return ["train", f"{experiment}.json", "--run", run, "--json", "--device", "cpu", *options]


def adapt(learner: str, support: Path, query: Path) -> list[str]:
    """The command that adapts a registered learner."""
    return ["adapt", f"models:/unchanged-{learner}/1", "--support", str(support), "--query", str(query), "--json"]


ON_RANKS = ("--workers", "2", *RANKS)
GO_ON: dict[str, list[str]] = {
    "stopped": train("stopped", "stopped", "--no-register"),
    "stopped-ranks": train("stopped-ranks", "stopped-ranks", "--no-register", *ON_RANKS),
    "search": ["tune", "searched.json", "--run", "search", "--json", *SEARCH],
}
"""What was stopped half-way, and goes on by the same command; the one on Ranks and the search start a local Ray."""

REFERENCES: dict[str, list[str]] = {
    "stopped": train("stopped", "stopped-reference", "--no-register"),
    "stopped-ranks": train("stopped-ranks", "stopped-ranks-reference", "--no-register"),
    "search": ["tune", "searched.json", "--run", "search-reference", "--json", *SEARCH],
}
"""The same, never stopped, and without ranks."""

ASKED: list[Command] = [
    ("describe", ["data", "describe", STORE, "--verify", "--json"]),
    ("finished", train("finished", "finished", "--no-register")),
    ("registry", ["registry", "list", "--json"]),
    ("evaluate", ["evaluate", "models:/unchanged-image/1", "--episodes", "3", "--json"]),
    ("adapt", adapt("image", SUPPORT, QUERY)),
    ("adapt-values", adapt("regression", TASK / "known.csv", TASK / "new.csv")),
]
"""Commands whose answers are to stay the same."""


def make(tree: Path, folder: Path) -> None:
    """Make all fixtures in a new folder, which must stay where it is: MLflow notes absolute paths.

    Args:
        tree: that metaray comes from.
        folder: new.

    Raises:
        ValueError: if a command fails, or a run that is to be stopped ends before.
        FileExistsError: if the folder is there.
    """
    folder.mkdir(parents=True)
    lay_out(folder)
    write_own_code(folder)
    images = ["data", "import", "images", str(IMAGES), "--out", STORE, "--size", str(SIDE), "--mode", "L"]
    plan = [("import", [*images, "--splits", "0.4,0.3,0.3"])]
    plan += [(name, train(name, name)) for name in LEARNERS]
    plan += [*ASKED, *((f"{name}-reference", arguments) for name, arguments in REFERENCES.items())]
    run_plan(tree, folder, plan)
    for name, _ in plan:
        code = (folder / "logs" / f"{name}.code").read_text()
        if code != "0":
            raise ValueError(f"{name}: exit code {code}: {(folder / 'logs' / f'{name}.err').read_text()}")
    predict(tree, folder)
    # In process by SIGKILL, which nothing can answer; the others in order.
    stop(tree, folder, "stopped", "checkpoints/*/manifest.json", signal.SIGKILL)
    stop(tree, folder, "stopped-ranks", "checkpoints/*/manifest.json", signal.SIGTERM)
    stop(tree, folder, "search", "trial-0001/checkpoints/*/manifest.json", signal.SIGTERM)


def predict(tree: Path, folder: Path) -> None:
    """Write down what the learners predict, into predictions.json.

    Raises:
        ValueError: if the process breaks off.
    """
    process = python(tree, folder, "-m", f"{__package__}.probe", "predictions.json")
    code = ended(process, WITHIN_S)
    if code:
        raise ValueError(f"the process that predicts ended with exit code {code}")


def stop(tree: Path, folder: Path, name: str, sign: str, number: signal.Signals) -> None:
    """Begin what GO_ON names, and send it a signal half-way.

    Args:
        tree: that metaray comes from.
        folder: of the fixtures.
        name: in GO_ON, and of the run.
        sign: a file in the run's folder, as a pattern, that says that there is something to go on from.
        number: SIGTERM asks for an orderly stop, SIGKILL for none.

    Raises:
        ValueError: if it ended by itself, or not as it should.
    """
    process = begun_plan(tree, folder, [(f"{name}-stopped", GO_ON[name])])
    try:
        _wait(process, lambda: any((folder / "runs" / name).glob(sign)))
        process.send_signal(number)
    finally:
        code = ended(process, WITHIN_S)
    wanted = STOPPED_BY_SIGNAL if number == signal.SIGTERM else -number
    if code != wanted:
        said = (folder / "logs" / f"{name}-stopped.err").read_text()[-500:]
        raise ValueError(f"{name} was to be stopped with exit code {wanted}, not {code}: {said}")


def _wait(process: subprocess.Popen[bytes], done: Callable[[], bool]) -> None:
    until_s = time.monotonic() + WITHIN_S
    while not done() and process.poll() is None and time.monotonic() < until_s:
        time.sleep(POLL_S)
