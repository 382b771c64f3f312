"""Few-shot assays beside their baselines: trains recipes of jobs/assays.py and judges them assay by assay.

    python -m jobs.benchmarks.molecules.study tox21.arrow --name tox21 [--recipes protonet_10shot ...] [--seeds 10]
        [--part meta-test] [--repeats 10] [--set algorithm.inner_lr=0.05 ...] [--out docs/molecules]

A seed decides the network, the episodes that it learns from, and the support sets on which it is judged; baselines are
judged on the same ones, and so is what needs no support: how often a molecule is active in the assays of meta-train. In
training the step is chosen by meta-val. What is found is added to NAME.json, and the page
beside that folder is built from all records in it. Choose settings with `--part meta-val`; nothing is chosen on
meta-test.
"""

import argparse
import json
import resource
from dataclasses import replace as changed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from jobs import assays
from jobs.benchmarks.molecules.judging import Rival, areas, episodes_of
from metaray.algorithms.nearest_neighbor import NearestNeighbor
from metaray.algorithms.per_task import BASELINES
from metaray.config import replace
from metaray.data import GroupTable
from metaray.data.draws import Split
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment.experiment import Experiment
from metaray.experiment.overrides import override
from metaray.learners.loading import load_learner
from metaray.models.comparison import Comparison
from metaray.records.estimate import estimate, paired_difference
from metaray.records.events import Event, Listener
from metaray.records.run import LEARNER
from metaray.records.storage import Storage
from metaray.training.in_process import InProcess
from metaray.training.outer_loop import context_of, initial_state

RECIPES = ("protonet_10shot", "r2d2_10shot", "anil_10shot", "cnp_10shot")
INTRODUCTION = """Made by `jobs/benchmarks/molecules/study.py` from its records, on one thread of a CPU.

Support of 10 active and 10 inactive molecules, all others of the assay as the query; counted Morgan fingerprints of
radius 2. Of the assays for training the last choose the step: Tox21 has 7 assays in meta-train, 2 in meta-val and 3 in
meta-test, SIDER 17, 4 and 6, MUV 10, 2 and 5; the last are the usual ones (Altae-Tran et al., ACS Central Science 3(4),
2017). With graph networks papers report 75.0 (ProtoNet) and 80.2 (MAML) on Tox21 at 10 shots, and train on all 9 assays
that are none of the test's.

All assays share their molecules, as in the papers: a molecule that is judged had labels in meta-train, in other assays.
"Labels in meta-train, no support" is what these say alone, without an example of the assay; on SIDER nothing that
learns from the support comes near it. In the tables of new molecules those that are judged have no label in meta-train,
nor have those of the support."""
WHILE_TRAINING = 64
"""Queries a class by which meta-val chooses the step; the end is judged by all molecules."""


def planned(recipe: str, path: Path, seed: int, settings: list[str]) -> Experiment:
    """A recipe's experiment on a file."""
    experiment: Experiment = getattr(assays, recipe)()
    experiment = override(experiment, [f"source.path={path}", f"seed={seed}", *settings])
    spec = replace(experiment.eval_spec, queries=_queries(experiment, WHILE_TRAINING))
    return replace(experiment, evaluation=replace(experiment.evaluation, episodes=spec, test_episodes=2))


def _queries(experiment: Experiment, most: int) -> int:
    """As many queries a class as the smallest group of meta-val has."""
    source = experiment.source
    assert isinstance(source, GroupTable)
    shots = experiment.eval_spec.most_shots
    fewest = min(min(map(len, pools.each)) for pools in source._open().pools["meta-val"])
    return max(1, min(most, fewest - shots))


class Quiet(Listener):
    """Hears nothing."""

    def on_event(self, event: Event) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def rivals_of(experiment: Experiment, recipe: str) -> dict[str, Rival]:
    """The learner that an experiment trains, and the network before that."""
    with TemporaryDirectory() as folder:
        storage = Storage(f"{folder}/run")
        InProcess("cpu").train(experiment, storage, Quiet())
        learner = load_learner(Path(storage.root) / LEARNER)
    state = initial_state(experiment, torch.device("cpu"))
    context = context_of(experiment, state.network, training=False)
    untrained = {name: tensor.detach() for name, tensor in state.meta.items()}
    return {
        recipe: Rival(learner.algorithm, learner.meta, context),
        f"{recipe}, untrained": Rival(experiment.algorithm, untrained, context),
    }


def baselines_of(experiment: Experiment) -> dict[str, Rival]:
    """What needs no training, on the fingerprints themselves."""
    network = Comparison(experiment.source.preprocessing)
    context = changed(context_of(experiment, network, training=False), network=network)
    each = {"nearest neighbour": NearestNeighbor(), "logistic regression": BASELINES["logistic"]}
    return {name: Rival(algorithm, {}, context) for name, algorithm in each.items()}


def study(path: Path, recipes: list[str], seed: int, part: Split, repeats: int, settings: list[str]) -> dict[str, Any]:
    """One seed: the areas of all rivals by assay, and what it took."""
    began = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    experiments = {recipe: planned(recipe, path, seed, settings) for recipe in recipes}
    first = next(iter(experiments.values()))
    rivals = baselines_of(first)
    for recipe, experiment in experiments.items():
        rivals |= rivals_of(experiment, recipe)
    trained = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    assert isinstance(first.source, GroupTable)
    spec = EpisodeSpec(shots=first.episodes.most_shots, queries="rest")
    found = areas(rivals, first.source, episodes_of(first.source, spec, part, seed, repeats))
    ended = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    return {
        "seed": seed,
        "part": part,
        "settings": settings,
        "steps": first.num_steps,
        "training_cpu_s": round(trained - began, 1),
        "judging_cpu_s": round(ended - trained, 1),
        "areas": {name: {assay: sum(one) / len(one) for assay, one in of.items()} for name, of in found.items()},
    }


def page(folder: Path) -> str:
    """What the records in a folder say: means over seeds, of all assays and of each, with intervals over seeds."""
    parts = ["# Few-shot assays", "", INTRODUCTION]
    for path in sorted(folder.glob("*.json")):
        parts += ["", *_section(path.stem, json.loads(path.read_text()))]
    return "\n".join(parts) + "\n"


def _section(name: str, seeds: list[dict[str, Any]]) -> list[str]:
    rivals = seeds[0]["areas"]
    assays_of = list(next(iter(rivals.values())))
    whole = {rival: [_mean(list(one["areas"][rival].values())) for one in seeds] for rival in rivals}
    first = seeds[0]
    settings = ", ".join(["", *first["settings"]])
    lines = [
        f"## {name}: {len(seeds)} seeds",
        "",
        f"AUROC, % on {first['part']}, mean over seeds +- half a 95% interval; {first['steps']} outer steps{settings}; "
        f"{_mean([one['training_cpu_s'] for one in seeds]):.0f} s of one core a seed for training.",
        "",
        f"| | all | {' | '.join(assays_of)} |",
        f"|---|---|{'---|' * len(assays_of)}",
    ]
    for rival in rivals:
        each = [[one["areas"][rival][assay] for one in seeds] for assay in assays_of]
        lines.append(f"| {rival} | {' | '.join(_told(values) for values in [whole[rival], *each])} |")
    trained = [rival for rival in rivals if f"{rival}, untrained" in rivals]
    for rival in trained:
        for other in rivals:
            if other not in trained and (other == f"{rival}, untrained" or "untrained" not in other):
                gain = paired_difference(whole[rival], whole[other])
                told = f"{100 * gain.mean:+.1f} +- {100 * gain.half_width:.1f}"
                lines += ["", f"{rival} less {other}, seed by seed: {told}"]
    return lines


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _told(values: list[float]) -> str:
    found = estimate(values)
    return f"{100 * found.mean:.1f} +- {100 * found.half_width:.1f}"


def main() -> None:
    """Study the seeds that are not in the record yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES[:2]))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--part", choices=["meta-val", "meta-test"], default="meta-test")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--set", nargs="*", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("docs/molecules"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    record = options.out / f"{options.name}.json"
    done = json.loads(record.read_text()) if record.is_file() else []
    for seed in range(len(done), options.seeds):
        found = study(options.path, options.recipes, seed, options.part, options.repeats, options.settings)
        done.append(found)
        record.write_text(json.dumps(done, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(page(options.out))
        means = {name: round(sum(of.values()) / len(of), 4) for name, of in found["areas"].items()}
        print(f"seed {seed}: {means}, {found['training_cpu_s']} + {found['judging_cpu_s']} s", flush=True)


if __name__ == "__main__":
    main()
