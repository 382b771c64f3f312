"""What a search of the inner learning rate is worth and what it costs.

    python -m jobs.benchmarks.search STORE [--episodes N] [--trials 16] [--at-once 2] [--bare 4] [--seed S] [--out docs]
    python -m jobs.benchmarks.search --pbt [--episodes N] [--trials 8] [--out docs]

The first trains Omniglot 5-way 1-shot MAML (jobs/omniglot.py) from a poor inner learning rate of 0.001, as a grid of
whole trials, and as a random search under ASHA, each trial seeing at most `--episodes` episodes. It compares meta-test
accuracies, episodes, and the grid's wall time with that of the same trainings without Ray. The second lets a population
find a schedule of the inner learning rate on sinusoids, and trains the winner's experiment again for its parameters.
What is found is kept in docs/search/, and docs/search.md is built from all that is there, nothing of it by hand.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jobs import omniglot, sinusoid
from jobs.benchmarks.search_page import page
from metaray.api.search_end import SearchReport
from metaray.api.search_options import SearchOptions
from metaray.api.train import train
from metaray.api.tune import run_search
from metaray.config import replace
from metaray.experiment.experiment import Experiment
from metaray.records.events import Fanout
from metaray.records.provenance import provenance
from metaray.records.result import read_result
from metaray.records.storage import Storage
from metaray.training.in_process import InProcess
from metaray.tuning.capacity import Shares
from metaray.tuning.listener import SearchListener
from metaray.tuning.search import INNER_LR, Search
from metaray.tuning.space import loguniform
from metaray.tuning.trial import Trial

POOR = 0.001
RANGE = loguniform(1e-3, 1)


class Clock(SearchListener):
    """Prints what ends, and times the search from its first trial's proposal to its last trial's end."""

    def __init__(self) -> None:
        self.first_s = self.last_s = 0.0

    def on_trials(self, trials: Sequence[Trial], changed: Trial) -> None:
        """Note the time."""
        self.last_s = time.perf_counter()
        self.first_s = self.first_s or self.last_s
        if changed.status in ("finished", "stopped early", "failed"):
            value = f"{changed.curve[-1].value:.4f}" if changed.curve else changed.why
            print(f"{changed.name} {changed.status} {dict(changed.settings)} {value}", flush=True)

    def on_note(self, text: str) -> None:
        """Print it."""
        print(text, flush=True)


def base(store: str, episodes: int, seed: int) -> Experiment:
    """5-way 1-shot MAML with a poor inner learning rate, seeing so many episodes, judged nine times."""
    recipe = omniglot.maml_5way_1shot()
    steps = episodes // recipe.meta_batch_size
    return replace(
        recipe,
        source=replace(recipe.source, path=store),
        algorithm=replace(recipe.algorithm, inner_lr=POOR),
        num_steps=steps,
        evaluation=replace(recipe.evaluation, every=max(1, steps // 9), val_episodes=200),
        seed=seed,
    )


def searched(search: Search, name: str, folder: Path, at_once: int) -> tuple[SearchReport, float]:
    """A search's end, and the seconds that its trials took."""
    clock = Clock()
    shares = Shares(concurrent=at_once)
    uri = f"sqlite:///{folder}/mlflow.db"
    options = SearchOptions(shares, name=name, storage=str(folder / "runs"), tracking_uri=uri, device="cpu")
    report = run_search(search, options, clock)
    return report, clock.last_s - clock.first_s


def record_of(report: SearchReport, seconds: float) -> dict[str, Any]:
    """What is kept of a search."""
    objective = report.search.optimises
    return {
        "search": report.search.model_dump(mode="json"),
        "trials": [
            {
                "settings": dict(trial.settings),
                "status": trial.status,
                "why": trial.why,
                "episodes": trial.own_episodes,
                "seconds": trial.seconds,
                "best": best._asdict() if (best := trial.best(objective)) else None,
            }
            for trial in report.trials
        ],
        "winner": {"name": report.winner.name, "settings": dict(report.winner.settings)},
        "meta_test": report.report.result.meta_test._asdict(),
        "parameters_sha256": report.report.result.parameters_sha256,
        "wall_s": seconds,
    }


def bare_seconds(experiment: Experiment) -> float:
    """Of the same training, meta-val included, in a process of its own without Ray; its imports not counted."""
    code = (
        "import sys, time\n"
        "from metaray.records.events import Fanout\n"
        "from metaray.experiment.experiment import Experiment\n"
        "from metaray.training.in_process import InProcess\n"
        "from metaray.training.place import Extent\n"
        "from metaray.records.storage import Storage\n"
        "experiment = Experiment.from_json(sys.stdin.read())\n"
        "started = time.perf_counter()\n"
        "InProcess('cpu').train(experiment, Storage(sys.argv[1]), Fanout([]), Extent(judge=False))\n"
        "print(time.perf_counter() - started)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code, folder]
        done = subprocess.run(command, input=experiment.to_json(), capture_output=True, text=True, check=True)
    return float(done.stdout)


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The untuned run, the grid and ASHA."""
    start = base(str(Path(arguments.store).absolute()), arguments.episodes, arguments.seed)
    space = {INNER_LR: RANGE}
    grid = Search(experiment=start, space=space, searcher="grid", scheduler="none", trials=arguments.trials)
    asha = Search(experiment=start, space=space, trials=arguments.trials, seed=arguments.seed)
    uri = f"sqlite:///{folder}/mlflow.db"
    untuned = train(start, run="untuned", storage=str(folder / "runs"), tracking_uri=uri, progress=False).result
    print(f"untuned: {untuned.meta_test}", flush=True)
    found = {"untuned": {"inner_lr": POOR, "meta_test": untuned.meta_test._asdict(), "episodes": arguments.episodes}}
    for name, search in (("grid", grid), ("asha", asha)):
        kept = folder / f"{name}-{arguments.episodes}-{arguments.seed}.json"
        if not kept.exists():
            report, seconds = searched(search, kept.stem, folder, arguments.at_once)
            kept.write_text(json.dumps(record_of(report, seconds)))
            print(f"{name}: {report.winner.settings} {report.report.result.meta_test} in {seconds:.0f} s", flush=True)
        found[name] = json.loads(kept.read_text())
    step = max(1, arguments.trials // max(1, arguments.bare))
    sample = [grid.experiment_of(grid.initial(number)) for number in range(0, arguments.trials, step)]
    with ThreadPoolExecutor(arguments.at_once) as pool:
        together = list(pool.map(bare_seconds, sample))
    alone = [bare_seconds(experiment) for experiment in sample]
    found["bare"] = {"together_s": together, "alone_s": alone, "at_once": arguments.at_once}
    print(f"bare: {statistics.median(together):.1f} s together, {statistics.median(alone):.1f} s alone", flush=True)
    return found


def population(arguments: argparse.Namespace, folder: Path, out: Path) -> dict[str, Any]:
    """A population's schedule, and the parameters of its replay."""
    search = replace(sinusoid.maml_inner_lr_population(), trials=arguments.trials, seed=arguments.seed)
    search = replace(search, episodes=arguments.episodes)
    report, seconds = searched(search, f"pbt-{arguments.episodes}-{arguments.seed}", folder, arguments.at_once)
    picture = Storage(report.storage).read(f"figures/schedule-{INNER_LR}.png")
    (out / "search").mkdir(parents=True, exist_ok=True)
    (out / "search" / "pbt-schedule.png").write_bytes(picture)
    with tempfile.TemporaryDirectory() as place:
        InProcess("cpu").train(report.experiment, Storage(place), Fanout([]))
        again = read_result(Storage(place))
    return record_of(report, seconds) | {"replayed_sha256": again.parameters_sha256}


def command_of(arguments: argparse.Namespace) -> str:
    """What to type for the same figures, wherever the store lies."""
    options = ["--episodes", arguments.episodes, "--trials", arguments.trials, "--seed", arguments.seed]
    what = ["--pbt"] if arguments.pbt else [Path(arguments.store).name, "--bare", arguments.bare]
    return shlex.join(map(str, ["python", "-m", "jobs.benchmarks.search", *what, *options]))


def without_folders(tree: Any) -> Any:
    """A record in which stores have names, and no folders of this machine."""
    if isinstance(tree, Mapping):
        return {
            key: Path(value).name if key == "path" and isinstance(value, str) else without_folders(value)
            for key, value in tree.items()
        }
    return [without_folders(value) for value in tree] if isinstance(tree, list) else tree


def write(found: Mapping[str, Any], name: str, arguments: argparse.Namespace, out: Path) -> None:
    """Keep a record with where it comes from, and build the page anew."""
    kept = {
        "found": without_folders(found),
        "command": command_of(arguments),
        "commit": provenance().get("git.commit", ""),
        "seed": arguments.seed,
    }
    (out / "search").mkdir(parents=True, exist_ok=True)
    (out / "search" / f"{name}.json").write_text(json.dumps(kept, indent=2) + "\n")
    (out / "search.md").write_text(page({p.stem: json.loads(p.read_text()) for p in (out / "search").glob("*.json")}))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", nargs="?", help="Omniglot's class store")
    parser.add_argument("--pbt", action="store_true")
    parser.add_argument("--episodes", type=int)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--bare", type=int, default=4, help="trials of the grid that are also trained without Ray")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storage", help="folder that keeps the runs; a broken-off benchmark goes on from it")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    if not arguments.pbt and arguments.store is None:
        parser.error("give the path of Omniglot's class store, or --pbt")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.storage or scratch).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.pbt:
            arguments.trials, arguments.episodes = arguments.trials or 8, arguments.episodes or 75_000
            write(population(arguments, folder, arguments.out), "pbt", arguments, arguments.out)
        else:
            arguments.trials, arguments.episodes = arguments.trials or 16, arguments.episodes or 3200
            write(compare(arguments, folder), "omniglot", arguments, arguments.out)


if __name__ == "__main__":
    main()
