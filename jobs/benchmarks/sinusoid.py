"""Every regression-capable algorithm on sinusoids, by its recipe in jobs/sinusoid.py: squared error by inner steps.

    python -m jobs.benchmarks.sinusoid [--algorithms maml cnp ...] [--steps N] [--seed S] [--storage DIR] [--out docs]

Each learner is the one that meta-val chose, judged on the first 1000 meta-test tasks, the same for all. Algorithms with
inner steps are judged after 0, 1, 5 and 10 of them, whatever number they were trained and chosen with. What is found is
kept in docs/sinusoid/, and docs/sinusoid.md is built from all that is there: nothing in it is edited by hand.
"""

import argparse
import hashlib
import inspect
import json
import math
import shlex
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jobs import sinusoid
from metaray.config import replace
from metaray.errors import unknown
from metaray.experiment.experiment import Experiment
from metaray.learners.learner import Learner
from metaray.learners.loading import load_learner
from metaray.plots.function_fits import draw_fits, fits_of
from metaray.records.estimate import Estimate
from metaray.records.events import Event, Listener
from metaray.records.provenance import provenance
from metaray.records.result import read_result
from metaray.records.run import LEARNER
from metaray.records.storage import Storage
from metaray.training.evaluation import evaluate_learner
from metaray.training.in_process import InProcess

INNER_STEPS = (0, 1, 5, 10)
PICTURED = ("maml",)

RECIPES: dict[str, Callable[[], Experiment]] = {
    name: function
    for name, function in inspect.getmembers(sinusoid, inspect.isfunction)
    if inspect.signature(function).return_annotation is Experiment and not name.startswith("_")
}


class Progress(Listener):
    """Prints meta-val as it comes."""

    def __init__(self, name: str) -> None:
        self._name = name

    def on_event(self, event: Event) -> None:
        """Print evaluations and notes."""
        if event.kind == "evaluation":
            print(f"{self._name}: step {event.step}: meta-val mse {event.values['val/mse']:.4f}", flush=True)
        elif event.kind == "note":
            print(f"{self._name}: {event.text}", flush=True)

    def close(self) -> None:
        """Nothing to do."""


def planned(name: str, *, seed: int, steps: int | None) -> Experiment:
    """A recipe's experiment, with so many outer steps if they are given.

    Raises:
        InputError: if there is no such recipe.
    """
    if name not in RECIPES:
        raise unknown("recipe of jobs/sinusoid.py", name, RECIPES)
    experiment = replace(RECIPES[name](), seed=seed)
    if steps is None:
        return experiment
    evaluation = replace(experiment.evaluation, every=max(1, steps // 10))
    return replace(experiment, num_steps=steps, evaluation=evaluation)


def judged(learner: Learner, experiment: Experiment) -> dict[str, Estimate]:
    """Squared error on meta-test by number of inner steps; "-" where there are none to take."""
    if not learner.algorithm.gradient_steps:
        return {"-": evaluate_learner(learner, experiment, "meta-test").estimate}
    # The oracle knows its task.
    asked = (0,) if learner.inner_steps == 0 else INNER_STEPS
    return {str(n): evaluate_learner(learner, experiment, "meta-test", inner_steps=n).estimate for n in asked}


def folder_of(name: str, experiment: Experiment) -> str:
    """Where a recipe's run lies in the storage: an edited recipe does not go on from what another left."""
    digest = hashlib.sha256(experiment.to_json().encode()).hexdigest()[:12]
    return f"{name}-{experiment.num_steps}steps-seed{experiment.seed}-{digest}"


def run_one(
    name: str, storage: Path, out: Path, tags: Mapping[str, str], *, seed: int, steps: int | None
) -> dict[str, Any]:
    """Train, judge: the record of one recipe.

    Args:
        name: of the recipe.
        storage: of all runs.
        out: folder of the pictures.
        tags: where the code that runs comes from.
        seed: of the run.
        steps: outer steps, instead of the recipe's.
    """
    experiment = planned(name, seed=seed, steps=steps)
    place, started = Storage(str(storage / folder_of(name, experiment))), time.time()
    InProcess("cpu").train(experiment, place, Progress(name))
    result = read_result(place)
    with tempfile.TemporaryDirectory() as scratch:
        learner = load_learner(place.download(LEARNER, Path(scratch) / LEARNER))
    if name in PICTURED:
        tasks = fits_of(learner, experiment.source, experiment.eval_spec, experiment.evaluation.seed)
        draw_fits(tasks, out / f"{name}.png", f"{experiment.name}: meta-test tasks, {experiment.protocol}")
    command = f"python -m jobs.benchmarks.sinusoid --algorithms {name} --steps {experiment.num_steps} --seed {seed}"
    return {
        "recipe": name,
        "mse": {count: estimate._asdict() for count, estimate in judged(learner, experiment).items()},
        "chosen_after": experiment.evaluation.inner_steps,
        "before_training": result.before_training._asdict(),
        "nearest_neighbor": result.nearest_neighbor and result.nearest_neighbor._asdict(),
        "meta_val": result.meta_val._asdict(),
        "best_step": result.best_step,
        "num_steps": experiment.num_steps,
        "episodes": experiment.num_steps * experiment.meta_batch_size,
        "training_s": round(result.seconds, 1),
        "wall_s": round(time.time() - started, 1),
        "protocol": result.protocol,
        "seed": seed,
        "command": shlex.join(command.split()),
        "commit": tags.get("git.commit", "unknown"),
        "dirty": tags.get("git.dirty", "unknown"),
        "torch": tags["torch.version"],
        "device": f"CPU {tags['cpu.capability']}",
        "fingerprint": experiment.source.fingerprint,
        "parameters_sha256": result.parameters_sha256,
        "experiment": experiment.model_dump(mode="json"),
    }


def cell(estimate: dict[str, float] | None) -> str:
    """An error with its interval."""
    if estimate is None:
        return ""
    if not math.isfinite(estimate["mean"]):
        return "diverges"
    return f"{estimate['mean']:.4f} +- {estimate['half_width']:.4f}"


def best(record: dict[str, Any]) -> float:
    """The lowest error over the inner steps, to sort by."""
    return float(min(e["mean"] for e in record["mse"].values() if math.isfinite(e["mean"])))


def row(record: dict[str, Any]) -> str:
    """A line of the table."""
    errors = record["mse"]
    columns = [cell(errors.get(str(steps))) for steps in INNER_STEPS]
    episodes, seconds = f"{record['episodes']:,}", f"{record['training_s']:.0f}"
    return "| " + " | ".join([record["recipe"], cell(errors.get("-")), *columns, episodes, seconds]) + " |"


def origin(record: dict[str, Any]) -> str:
    """Where a line of the table comes from."""
    changed = ", with changes" if record["dirty"] == "true" else ""
    steps = record["chosen_after"]
    judged_after = "" if steps is None else f" after {steps} inner {'step' if steps == 1 else 'steps'}"
    return (
        f"- {record['recipe']}: `{record['command']}`; seed {record['seed']}; the learner of step "
        f"{record['best_step']} of {record['num_steps']}, chosen by meta-val{judged_after} "
        f"({cell(record['meta_val'])}); commit {record['commit']}{changed}; torch {record['torch']}, "
        f"{record['device']}; parameters sha256 {record['parameters_sha256'][:12]}"
    )


def page(records: list[dict[str, Any]]) -> str:
    """The whole page, of all records."""
    records = sorted(records, key=best)
    inner = " | ".join(f"{n} inner {'step' if n == 1 else 'steps'}" for n in INNER_STEPS)
    first = next((record for record in records if record["recipe"] != "oracle"), records[0])  # whose inputs are others
    pictures = "\n\n".join(f"![{r['recipe']}](sinusoid/{r['recipe']}.png)" for r in records if r["recipe"] in PICTURED)
    return "\n".join(
        [
            "# Sinusoids, 10-shot",
            "",
            "Made by `jobs/benchmarks/sinusoid.py` from the records in `sinusoid/`.",
            "",
            "Mean squared error with its 95% interval over meta-test tasks "
            f"({next(iter(first['mse'].values()))['episodes']}, the same for all; {first['protocol'].split(',')[0]}). "
            "`baseline` is one network trained on all tasks together and fine-tuned on each; `oracle` is told each "
            "task's amplitude and phase. Algorithms without inner steps have one number. Before training the error "
            f"is {cell(first['before_training'])}; the nearest neighbour's is {cell(first['nearest_neighbor'])}.",
            "",
            f"| recipe | without inner steps | {inner} | episodes | seconds of training |",
            "|---" * (len(INNER_STEPS) + 4) + "|",
            *map(row, records),
            "",
            *([pictures, ""] if pictures else []),
            "## Where the numbers come from",
            "",
            *map(origin, records),
            "",
        ]
    )


def write_whole(path: Path, text: str) -> None:
    """Write a file beside and rename it: no reader and no kill finds half of it."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text)
    beside.replace(path)


def main() -> None:
    """Run what is asked for, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="*", default=list(RECIPES), help="recipes of jobs/sinusoid.py")
    parser.add_argument("--steps", type=int, help="outer steps, instead of the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storage", type=Path, help="folder of the runs, where they can go on; by default a new one")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    options = parser.parse_args()
    tags = provenance()  # of the code as it was imported, whatever is committed meanwhile
    kept = options.out / "sinusoid"
    kept.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        storage = options.storage or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in options.algorithms:
            record = run_one(name, storage, kept, tags, seed=options.seed, steps=options.steps)
            write_whole(kept / f"{name}.json", json.dumps(record, indent=1) + "\n")
            records = [json.loads(path.read_text()) for path in sorted(kept.glob("*.json"))]
            write_whole(options.out / "sinusoid.md", page(records))
            print(row(record), flush=True)


if __name__ == "__main__":
    main()
