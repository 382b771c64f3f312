"""docs/unsupervised.md from the records that the runs keep."""

import json
from pathlib import Path
from typing import Any

from metaray.records.estimate import Estimate

INTRODUCTION = """# Meta-training without labels

Made by `jobs/benchmarks/unsupervised` from its records in docs/unsupervised/.

Two sources make tasks of examples that nobody has labelled. `UMTRA` takes single examples for classes, and altered
copies of them for queries. `CACTUs` (Hsu, Levine and Finn, ICLR 2019) takes clusters for classes, of vectors that some
encoder made of the examples; the network that is trained sees the examples themselves.

```
metaray data embed images.arrow --encoder ENCODER --out vectors.arrow
metaray data cluster vectors.arrow --split vinyals --clusters 500 --partitions 50 --out partitions.arrow
metaray train RECIPE --set source.kind=cactus --set source.partitions=partitions.arrow \\
    --set source.source.kind=class_store --set source.source.path=images.arrow --set source.source.split=vinyals
```

- Vectors: any store of them, of the same examples in the same order. One that `data embed` did not write says whose
  examples these are as `store_fingerprint` of its origin.
- Partitions: k-means on meta-train alone, the first on the vectors as they are, each other after a random scaling of
  the dimensions. They are a function of the vectors and the seed, in a file that has the fingerprints of both stores.
- A task: one partition, N of its clusters, and of each as many examples as shots and queries ask for, all without
  replacement, so that no example is in both. Clusters with fewer are left aside; where no partition has enough, that is
  said with the numbers before a run begins.
- Meta-val and meta-test are the wrapped source's, labels and all.

The paper's margin is of another way to part examples, by random hyperplanes; k-means has none.
"""
PAPERS = {
    "cactus-acai-maml": (68.84, 87.78),
    "cactus-acai-protonet": (68.12, 83.58),
    "umtra-maml": (83.80, 95.43),
}
"""Percent at 1 and 5 shots."""
TITLES = {
    "contrastive": "CACTUs, contrastive embedding",
    "acai": "CACTUs, ACAI",
    "umtra": "UMTRA",
    "labels": "labels",
}
LEARNERS = {"maml": "MAML", "protonet": "ProtoNet"}
SHOTS = ("1-shot", "5-shot")


def page(folder: Path, order: list[str]) -> str:
    """What the records say, in an order of their names."""
    records = [
        json.loads((folder / f"{name}.json").read_text()) for name in order if (folder / f"{name}.json").exists()
    ]
    if not records:
        return INTRODUCTION
    lines = [INTRODUCTION, "## Omniglot, 5-way", "", *_conditions(records), ""]
    lines += ["| | learner | 1 shot | 5 shots | paper, 1 / 5 | core minutes | steps |", "|---|---|---|---|---|---|---|"]
    lines += [_row(record) for record in records]
    lines += [_embedding(made) for made in _embeddings(records)]
    lines += [f"| nearest neighbour on pixels | - | {percent(records[0]['nearest_neighbor'])} | - | - | 0 | - |"]
    lines += ["", *_making(records), "", "```", *(record["command"] for record in records), "```", ""]
    facts = [(record["device"], record["torch"], record["commit"][:7]) for record in records]
    machines = sorted({f"{device}, torch {torch}, commit {commit}" for device, torch, commit in facts})
    return "\n".join([*lines, f"Machine: {'; '.join(machines)}.", ""])


def percent(estimate: dict[str, Any]) -> str:
    """With its interval."""
    found = Estimate(**estimate)
    return f"{100 * found.mean:.2f} ± {100 * found.half_width:.2f}"


def _conditions(records: list[dict[str, Any]]) -> list[str]:
    protocols = sorted({f"{record['run'].split('-')[-1]}: {record['protocol']}" for record in records})
    text = [
        "Vinyals's split, without rotations. Trained at 1 shot and judged at 1 and 5, both with 5 queries a class, as",
        "the authors of CACTUs do; the step is chosen by labelled episodes of meta-val, as theirs is. Percent over",
        "1000 episodes of meta-test with 95 % intervals over them, of one seed. The papers train for longer, on other",
        "splits of the characters, ACAI with a larger network; UMTRA's augmentation is that of `jobs/omniglot.py`.",
        "Core minutes are those of the learner alone; one thread of a CPU.",
        "",
    ]
    return [*text, *(f"- {protocol}" for protocol in protocols)]


def _row(record: dict[str, Any]) -> str:
    name = record["run"]
    learns = name.split("-")[-1]
    labels = record["embedding"].get("kind") or name.split("-")[0]
    paper = PAPERS.get(name)
    beside = "-" if paper is None else f"{paper[0]:.2f} / {paper[1]:.2f}"
    cells = [f"{TITLES[labels]}", f"{LEARNERS[learns]}, trained at {record['trained_at']}"]
    cells += [percent(record["meta_test"][shots]) for shots in SHOTS]
    cells += [beside, f"{record['core_minutes']:.1f}", str(record["steps"])]
    return f"| {' | '.join(cells)} |"


def _embedding(made: dict[str, Any]) -> str:
    cells = [f"{TITLES[made['kind']].removeprefix('CACTUs, ')}, class means of it", "-"]
    cells += [percent(made[f"meta_test_class_means_{shots[0]}"]) for shots in SHOTS]
    cells += ["-", f"{made['core_minutes']:.1f} (the embedding)", str(made["steps"])]
    return f"| {' | '.join(cells)} |"


def _embeddings(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list(
        {record["embedding"]["kind"]: record["embedding"] for record in records if record["embedding"]}.values()
    )


def _making(records: list[dict[str, Any]]) -> list[str]:
    return [
        f"- {TITLES[made['kind']].removeprefix('CACTUs, ')}: {made['about']}, {made['size']} numbers, {made['steps']} "
        f"steps of {made['batch']} images in {made['core_minutes']:.1f} core minutes; {made['partitions']} partitions "
        f"into {made['clusters']} clusters in {made['clustering_core_minutes']:.1f}"
        for made in _embeddings(records)
    ]
