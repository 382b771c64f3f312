"""MovieLens by folds of users: each user of meta-test judged once, beside what item means say.

    python -m jobs.benchmarks.movielens ml-latest-small.zip --recipe r2d2 --folds 0,1,2,3,4 --order time

Imports each fold, trains in this process on one thread, and prints mean absolute errors a user with 95% intervals over
users, and paired differences to each baseline. What a run reports itself draws users with replacement: where the
support is a user's first ratings, each is one and the same episode every time, and its interval is too narrow.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from jobs import movielens
from jobs.benchmarks.movielens_table import FOLDS, prepare
from metaray.algorithms.per_task import BASELINES
from metaray.config import replace
from metaray.data import GroupTable
from metaray.data.preprocessing import TablePreprocessing
from metaray.data.tables.importing import import_table
from metaray.episodes.tensors import Examples
from metaray.experiment import Experiment
from metaray.experiment.overrides import override
from metaray.learners.learner import Learner
from metaray.learners.loading import load_learner
from metaray.models.comparison import Comparison
from metaray.records.estimate import estimate, paired_difference
from metaray.records.events import Event, Listener
from metaray.records.result import read_result
from metaray.records.run import LEARNER
from metaray.records.storage import Storage
from metaray.training.in_process import InProcess

RECIPES = {"r2d2": movielens.r2d2, "cnp": movielens.cnp, "maml": movielens.maml}
RIVALS = (
    "global_mean",
    "support_mean",
    "ridge",
    "item_mean",
    "item_mean_and_offset",
    "item_mean_and_shrunk_offset",
)
ORDERS = ("time", "random")
SHOTS = 10


class Errors(NamedTuple):
    """Mean absolute errors of users.

    Attributes:
        by: who predicts: of each user.
        counts: ratings of each that were predicted.
    """

    by: dict[str, NDArray[np.float64]]
    counts: NDArray[np.int64]


def imported(archive: Path, folder: Path, fold: int, order: str) -> Path:
    """The file of a fold; an earlier one is taken as it is."""
    out = folder / f"fold{fold}-{order}.arrow"
    if not out.exists():
        prepare(archive, folder / f"fold{fold}", fold)
        import_table(
            folder / f"fold{fold}" / "ratings.csv",
            out,
            tasks=["userId"],
            target="rating",
            item="movieId",
            labels={"genres": "|", "tags": "|"},
            order_by="timestamp" if order == "time" else None,
            leave_out=[] if order == "time" else ["timestamp"],
            splits=folder / f"fold{fold}" / "splits",
        )
    return out


class Silence(Listener):
    """Tells nothing."""

    def on_event(self, event: Event) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def trained(experiment: Experiment, storage: Storage) -> Learner:
    """In this process."""
    InProcess("cpu").train(experiment, storage, Silence())
    return load_learner(Path(storage.root) / LEARNER)


def judged(learner: Learner, table: GroupTable) -> Errors:
    """Each user of meta-test once: the first ratings are the support, of those in no order some that a seed says."""
    opened = table._open()
    found: dict[str, list[float]] = {}
    counts = []
    for place, pools in enumerate(opened.pools["meta-test"]):
        (rows,) = pools.each
        if not opened.ordered:
            rows = np.random.default_rng(place).permutation(rows)
        sides = [table._side(opened.file, pools.group, part) for part in (rows[:SHOTS], rows[SHOTS:])]
        support, query = (
            Examples(table.preprocessing.normalize(torch.tensor(side.x)), torch.tensor(side.y)) for side in sides
        )
        counts.append(len(rows) - SHOTS)
        for name, score in _scores(learner, table.preprocessing, support, query):
            found.setdefault(name, []).append(score)
    return Errors({name: np.array(scores) for name, scores in found.items()}, np.array(counts))


def _scores(
    learner: Learner, preprocessing: TablePreprocessing, support: Examples, query: Examples
) -> Iterator[tuple[str, float]]:
    context = learner.context(1)
    compared = dataclasses.replace(context, network=Comparison(preprocessing))
    algorithms = [("learner", learner.algorithm, learner.meta, context)]
    algorithms += [(name, BASELINES[name], {}, compared) for name in RIVALS]
    with torch.no_grad():
        for name, algorithm, meta, one in algorithms:
            output = algorithm.predict(meta, algorithm.adapt(meta, support, one), query.x, one)
            yield name, float(one.score(output, query.y))


def tell(what: str, errors: Errors) -> None:
    """Print errors a user (and, in brackets, a rating), and what the learner's are less each baseline's, by user."""
    ours = errors.by["learner"]
    print(f"{what}, {len(ours)} users: learner {estimate(ours)} ({_a_rating(ours, errors):.4f} a rating)")
    for name in RIVALS:
        theirs, words = errors.by[name], name.replace("_", " ")
        told = f"{theirs.mean():.4f} ({_a_rating(theirs, errors):.4f} a rating)"
        print(f"  {words}: {told}; learner less this: {paired_difference(ours, theirs)}", flush=True)


def _a_rating(each: NDArray[np.float64], errors: Errors) -> float:
    return float(np.average(each, weights=errors.counts))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--recipe", choices=RECIPES, default="r2d2")
    parser.add_argument("--order", choices=ORDERS, default="time")
    parser.add_argument("--folds", default=",".join(map(str, range(FOLDS))))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--tables", type=Path, help="Folder that keeps the imported tables.")
    given = parser.parse_args(arguments)
    whole: list[Errors] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.tables or Path(scratch)
        for fold in map(int, given.folds.split(",")):
            path, begun = imported(given.archive, folder, fold, given.order), time.process_time()
            experiment = RECIPES[given.recipe]()
            meta = GroupTable(path=str(path)).meta
            source = replace(
                experiment.source, path=str(path), target_mean=meta.target_mean, target_std=meta.target_std
            )
            experiment = override(replace(experiment, source=source), given.set)
            storage = Storage(tempfile.mkdtemp(dir=scratch))
            learner = trained(experiment, storage)
            result = read_result(storage)
            print(
                f"fold {fold}: meta-val {result.meta_val}, step {result.best_step}, "
                f"{time.process_time() - begun:.0f} s of processor time"
            )
            assert isinstance(experiment.source, GroupTable)
            whole.append(judged(learner, experiment.source))
            tell(f"fold {fold}", whole[-1])
    together = {name: np.concatenate([errors.by[name] for errors in whole]) for name in whole[0].by}
    tell("all folds", Errors(together, np.concatenate([errors.counts for errors in whole])))


if __name__ == "__main__":
    main()
