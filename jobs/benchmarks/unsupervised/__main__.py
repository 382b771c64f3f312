"""Meta-training on Omniglot without labels: CACTUs over embeddings, UMTRA, and labels beside them, on one budget.

    python -m jobs.benchmarks.unsupervised omniglot.arrow --work FOLDER [--runs cactus-acai-maml ...] [--minutes 4]
        [--out docs]

FOLDER holds the vectors, KIND.arrow, that `embeddings` wrote, and the partitions that are made of them. A run trains
for `--minutes` of one thread, at 1 shot, and is judged at 1 and 5; the step is chosen by labelled episodes of meta-val,
as in the papers. Each run is kept in docs/unsupervised/, those on record are left alone, and docs/unsupervised.md is
built from all that is there.
"""

import argparse
import json
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

import torch

from jobs.benchmarks.fidelity import Curve, measure, planned
from jobs.benchmarks.unsupervised.embeddings import class_means
from jobs.benchmarks.unsupervised.page import page
from jobs.omniglot import maml_5way_1shot, protonet_5way_1shot, umtra_maml_5way_1shot
from metaray.config import replace
from metaray.data import UMTRA, CACTUs, ClassStore, Source
from metaray.data.partitions import cluster_store
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment.experiment import Experiment
from metaray.learners.loading import load_learner
from metaray.records.estimate import Estimate
from metaray.records.provenance import provenance
from metaray.records.result import read_result
from metaray.records.run import LEARNER
from metaray.records.storage import Storage
from metaray.training.evaluation import evaluate_learner
from metaray.training.in_process import InProcess

RUNS = {
    "cactus-contrastive-protonet": ("contrastive", "protonet"),
    "cactus-acai-maml": ("acai", "maml"),
    "umtra-maml": ("umtra", "maml"),
    "cactus-contrastive-maml": ("contrastive", "maml"),
    "cactus-acai-protonet": ("acai", "protonet"),
    "umtra-protonet": ("umtra", "protonet"),
    "labels-protonet": ("labels", "protonet"),
}
"""By name: what stands in for labels, and what learns."""
CLUSTERS, PARTITIONS = 500, 20
SHOTS, QUERIES, EPISODES = (1, 5), 5, 1000


def partitions_in(work: Path, kind: str, split: str) -> tuple[Path, float]:
    """The partitions of an embedding, made if they are not there, and the minutes of one core that they took."""
    found, notes = work / f"{kind}.partitions.arrow", work / f"{kind}.partitions.json"
    if not notes.exists():
        began = process_time()
        cluster_store(str(work / f"{kind}.arrow"), found, clusters=CLUSTERS, partitions=PARTITIONS, split=split)
        notes.write_text(json.dumps({"core_minutes": (process_time() - began) / 60}))
    return found, json.loads(notes.read_text())["core_minutes"]


def source_of(labels: str, store: ClassStore, work: Path) -> tuple[Source, dict[str, Any]]:
    """Where tasks come from, and what that took to make."""
    if labels == "labels":
        return store, {}
    if labels == "umtra":
        wrapped = umtra_maml_5way_1shot().source
        assert isinstance(wrapped, UMTRA)
        return replace(wrapped, source=store), {}
    partitions, minutes = partitions_in(work, labels, store.split)
    made = json.loads((work / f"{labels}.json").read_text())
    made |= {"clusters": CLUSTERS, "partitions": PARTITIONS, "clustering_core_minutes": round(minutes, 2)}
    for shots in SHOTS:
        found = class_means(work / f"{labels}.arrow", store.split, "meta-test", shots, QUERIES, EPISODES)
        made[f"meta_test_class_means_{shots}"] = found._asdict()
    return CACTUs(source=store, partitions=str(partitions)), made


def experiment_of(name: str, source: Source, seed: int) -> Experiment:
    """Trained at 1 shot: MAML at 5 ways, ProtoNet at 20."""
    labels, learns = RUNS[name]
    base = maml_5way_1shot() if learns == "maml" else protonet_5way_1shot()
    # UMTRA's queries are copies, of which the paper takes one; clusters have five, as their paper has it.
    queries = 1 if labels == "umtra" else 5
    return replace(
        base,
        name=f"omniglot-{name}",
        source=source,
        episodes=EpisodeSpec(ways=5 if learns == "maml" else 20, shots=1, queries=queries),
        meta_batch_size=8 if learns == "maml" else 4,
        evaluation=replace(
            base.evaluation,
            episodes=EpisodeSpec(ways=5, shots=1, queries=QUERIES),
            val_episodes=300,
            test_episodes=EPISODES,
        ),
        seed=seed,
    )


def run_one(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Measure, train, judge."""
    tags = provenance(argv=[])
    store = ClassStore(path=str(given.store), split=given.split)
    source, made = source_of(RUNS[name][0], store, given.work)
    base = experiment_of(name, source, given.seed)
    cost = measure(planned(base, 10**6), torch.device("cpu"))
    steps = given.steps or int(given.minutes * 60 / cost.step_s)
    experiment = planned(base, steps)
    curve = Curve(name)
    print(f"{name}: {steps} steps of {cost.step_s:.3f} s", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        storage = Storage(scratch)
        began = process_time()
        InProcess("cpu").train(experiment, storage, curve)
        minutes = (process_time() - began) / 60
        result = read_result(storage)
        learner = load_learner(Path(scratch) / LEARNER)
    judged: dict[str, Estimate] = {"1-shot": result.meta_test}
    for shots in SHOTS[1:]:
        evaluation = replace(experiment.evaluation, episodes=EpisodeSpec(ways=5, shots=shots, queries=QUERIES))
        found = evaluate_learner(learner, replace(experiment, evaluation=evaluation), "meta-test")
        judged[f"{shots}-shot"] = found.estimate
    return {
        "run": name,
        "meta_test": {shots: one._asdict() for shots, one in judged.items()},
        "before_training": result.before_training._asdict(),
        "nearest_neighbor": result.nearest_neighbor and result.nearest_neighbor._asdict(),
        "protocol": result.protocol,
        "trained_at": experiment.episodes.in_short,
        "steps": steps,
        "best_step": result.best_step,
        "curve": curve.points,
        "core_minutes": round(steps * cost.step_s / 60, 2),
        "core_minutes_with_judging": round(minutes, 2),
        "embedding": made,
        "seed": given.seed,
        "commit": tags.get("git.commit", "unknown"),
        "dirty": tags.get("git.dirty", "unknown"),
        "torch": tags["torch.version"],
        "device": f"CPU {tags['cpu.capability']}",
        "fingerprint": experiment.source.fingerprint,
        "parameters_sha256": result.parameters_sha256,
        "command": f"python -m jobs.benchmarks.unsupervised {given.store.name} --work FOLDER --runs {name} "
        f"--steps {steps}",
    }


def main() -> None:
    """Run what is not on record yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="what `metaray data import omniglot` wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder of the vectors")
    parser.add_argument("--runs", nargs="*", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--split", default="vinyals")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--steps", type=int, help="instead of --minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    given = parser.parse_args()
    kept = given.out / "unsupervised"
    kept.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in given.runs:
        record = kept / f"{name}.json"
        if not record.exists():
            beside = record.with_suffix(".json.part")
            beside.write_text(json.dumps(run_one(name, given), indent=1) + "\n")
            beside.replace(record)
        (given.out / "unsupervised.md").write_text(page(kept, list(RUNS)))


if __name__ == "__main__":
    main()
