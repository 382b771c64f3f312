"""One training on a fold of intents: a recipe, what it gains on validation or test classes, and its record."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from jobs import intents
from metaray.algorithms.algorithm import start
from metaray.algorithms.class_means import ClassMeans
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.task_shape import TaskShape
from metaray.data import ClassStore
from metaray.data.draws import Split
from metaray.episodes.prefetch import Arrival
from metaray.episodes.sampler import sample_meta_batch
from metaray.experiment import Experiment
from metaray.experiment.overrides import override
from metaray.models.comparison import Compared
from metaray.records.estimate import paired_difference
from metaray.records.result import parameters_sha256
from metaray.records.train_state import TrainState
from metaray.training.evaluation import Judge, evaluate
from metaray.training.outer_loop import context_of, initial_state, outer_loop
from metaray.training.reduction import LocalReducer

CPU = torch.device("cpu")
LAST_TWO = ('model.targets=["*.layers.4.*", "*.layers.5.*"]', "num_steps=200", "evaluation.every=100")
"""All linear layers of the last two of MiniLM's six, in fewer steps: no derivatives are needed below them."""
SETTINGS: dict[str, tuple[str, ...]] = {
    "map 1e-4": ("map_protonet", "optimizer.outer_lr=1e-4"),
    "map 3e-4": ("map_protonet", "optimizer.outer_lr=3e-4"),
    "map 1e-3": ("map_protonet", "optimizer.outer_lr=1e-3"),
    "map 1e-4, rank 32": ("map_protonet", "optimizer.outer_lr=1e-4", "model.rank=32"),
    "map 2e-4, rank 32": ("map_protonet", "optimizer.outer_lr=2e-4", "model.rank=32"),
    "map 3e-4, rank 16": ("map_protonet", "optimizer.outer_lr=3e-4", "model.rank=16"),
    "map 5e-4, rank 32": ("map_protonet", "optimizer.outer_lr=5e-4", "model.rank=32"),
    "map 3e-4, rank 32, T 0.05": (
        "map_protonet",
        "optimizer.outer_lr=3e-4",
        "model.rank=32",
        "algorithm.temperature=0.05",
    ),
    "map 3e-4, rank 32, T 0.2": (
        "map_protonet",
        "optimizer.outer_lr=3e-4",
        "model.rank=32",
        "algorithm.temperature=0.2",
    ),
    "map 3e-4, rank 32, 5-way": ("map_protonet", "optimizer.outer_lr=3e-4", "model.rank=32", "episodes.ways=5"),
    "map 3e-4, rank 32, 20-way": ("map_protonet", "optimizer.outer_lr=3e-4", "model.rank=32", "episodes.ways=20"),
    "map 3e-4, rank 64": ("map_protonet", "optimizer.outer_lr=3e-4", "model.rank=64"),
    "map 3e-4, rank 32": ("map_protonet", "optimizer.outer_lr=3e-4", "model.rank=32"),
    "lora 2e-4": ("lora_protonet", "optimizer.outer_lr=2e-4"),
    "lora 5e-4": ("lora_protonet", "optimizer.outer_lr=5e-4"),
    "lora 1e-3": ("lora_protonet", "optimizer.outer_lr=1e-3"),
    "lora 5e-4, T 0.05": ("lora_protonet", "optimizer.outer_lr=5e-4", "algorithm.temperature=0.05"),
    "lora 5e-4, rank 2": ("lora_protonet", "optimizer.outer_lr=5e-4", "model.rank=2"),
    "map 3e-4, 16-way 3-shot": ("map_protonet", "optimizer.outer_lr=3e-4", "episodes.ways=16", "episodes.shots=3"),
    "lora 1e-4, last two layers": ("lora_protonet", "optimizer.outer_lr=1e-4", *LAST_TWO),
    "lora 5e-4, last two layers": ("lora_protonet", "optimizer.outer_lr=5e-4", *LAST_TWO),
    "lora 1e-3, last two layers": ("lora_protonet", "optimizer.outer_lr=1e-3", *LAST_TWO),
    "lora 5e-4, 16-way": ("lora_protonet", "optimizer.outer_lr=5e-4", "episodes.ways=16", "episodes.queries=2"),
    "lora maml 5e-4": ("lora_maml",),
    "lora anil 5e-4": ("lora_anil",),
}
"""A recipe of `jobs.intents` and what is set in it; all are reported."""


class Given(NamedTuple):
    """What the command says.

    Attributes:
        scratch: where stores and results lie.
        encoder: its folder, or its weights.
        more: settings for every recipe, such as fewer steps.
        val_episodes: of validation classes, on which is chosen.
        test_episodes: of a fold's test classes.
    """

    scratch: Path
    encoder: str
    more: tuple[str, ...]
    val_episodes: int
    test_episodes: int


class Job(NamedTuple):
    """One training: of a setting on a fold of a data set, judged on a split."""

    name: str
    fold: str
    setting: str
    split: Split

    def place(self, scratch: Path) -> Path:
        """The file of its result."""
        safe = "".join(c if c.isalnum() or c in ".-" else "_" for c in self.setting)
        return scratch / "results" / f"{self.split}-{self.name}-{self.fold}-{safe}.json"


def store_of(scratch: Path, name: str, what: str) -> Path:
    """Of a data set's "texts" or "vectors"."""
    return scratch / f"{name}-{what}.arrow"


def experiment_of(given: Given, job: Job) -> Experiment:
    """The recipe on a fold, with what the setting and the command change."""
    recipe, *settings = SETTINGS[job.setting]
    experiment: Experiment = getattr(intents, recipe)()
    on_vectors = experiment.source.path == intents.VECTORS.path  # type: ignore[attr-defined]
    store = store_of(given.scratch, job.name, "vectors" if on_vectors else "texts")
    where = [f"source.path={store}", f"source.split={job.fold}"]
    where += [] if on_vectors else [f"model.model.path={given.encoder}"]
    return override(experiment, [*where, f"evaluation.val_episodes={given.val_episodes}", *settings, *given.more])


def judged(
    experiment: Experiment, state: TrainState, meta: Tensors, split: Split, episodes: int
) -> NDArray[np.float64]:
    """The accuracy on each episode, in percent."""
    context = context_of(experiment, state.network, training=False, step=experiment.num_steps)
    judge = Judge(experiment.source, experiment.eval_spec, split, episodes, experiment.evaluation.seed)
    found = evaluate(experiment.algorithm, meta, context, judge, device=CPU)
    return 100 * np.asarray(found.score, dtype=np.float64)


def frozen(given: Given, job: Job, experiment: Experiment, episodes: int) -> NDArray[np.float64]:
    """The same of the frozen encoder with class means, on the same episodes."""
    source = ClassStore(path=str(store_of(given.scratch, job.name, "vectors")), split=job.fold)
    spec, seed = experiment.eval_spec, experiment.evaluation.seed
    require_same_tasks(source, experiment, job.split)
    ways = spec.most_ways
    shape = TaskShape(source.feature_shape, ways, preprocessing=source.preprocessing)
    network, meta = start(ClassMeans(), Compared(preprocessing=source.preprocessing), shape, seed=0)
    judge = Judge(source, spec, job.split, episodes, seed)
    found = evaluate(ClassMeans(), meta, Context(network, ways=ways), judge, device=CPU)
    return 100 * np.asarray(found.score, dtype=np.float64)


def require_same_tasks(source: ClassStore, experiment: Experiment, split: Split) -> None:
    """Raise AssertionError if another store of the same texts would give other episodes."""
    spec, seed = experiment.eval_spec, experiment.evaluation.seed
    one, other = (
        [stack.task.class_ids for stack in sample_meta_batch(each, spec, split, seed, range(8)).stacks]
        for each in (source, experiment.source)
    )  # of texts, whose lengths differ, there are more stacks
    assert np.array_equal(np.concatenate(one), np.concatenate(other)), "other classes"


def trained(experiment: Experiment, state: TrainState) -> Iterator[tuple[int, Tensors]]:
    """The outer steps done and the meta-parameters, each time that validation classes are to be asked."""
    size, every = experiment.meta_batch_size, experiment.evaluation.every or experiment.num_steps
    for step in range(experiment.num_steps):
        share = range(step * size, (step + 1) * size)
        batch = sample_meta_batch(experiment.source, experiment.episodes, "meta-train", experiment.seed, share)
        list(outer_loop(experiment, state, [Arrival(step, batch, 0.0)], LocalReducer(), CPU))
        if (step + 1) % every == 0 or step + 1 == experiment.num_steps:
            yield step + 1, {name: tensor.detach().clone() for name, tensor in state.meta.items()}


def run(given: Given, job: Job) -> Path:
    """Train, choose the step on validation classes, judge; the result is a file, which is left alone if it is there."""
    place = job.place(given.scratch)
    if place.exists():
        return place
    torch.set_num_threads(1)
    began, clock = process_time(), perf_counter()
    experiment = experiment_of(given, job)
    episodes = given.val_episodes if job.split == "meta-val" else given.test_episodes
    before = frozen(given, job, experiment, episodes)  # first: it is quick, and says whether the tasks are the same
    state = initial_state(experiment, CPU)
    best, curve = (-1.0, 0, Tensors()), {}
    for step, meta in trained(experiment, state):
        score = judged(experiment, state, meta, "meta-val", given.val_episodes)
        curve[step] = round(float(score.mean()), 3)
        best = max(best, (float(score.mean()), step, meta), key=lambda one: one[:2])
    _, step, meta = best
    spent, waited = process_time() - began, perf_counter() - clock
    after = judged(experiment, state, meta, job.split, episodes)
    gain = paired_difference(after, before)
    record = {
        **job._asdict(),
        "trained": after.mean(),
        "frozen": before.mean(),
        "gain": gain.mean,
        "gain_interval_over_episodes": gain.half_width,
        "episodes": episodes,
        "best_step": step,
        "meta_val": curve,
        "parameters": sum(tensor.numel() for tensor in meta.values()),
        "parameters_sha256": parameters_sha256(meta),
        "train_cpu_s": round(spent, 1),
        "train_s": round(waited, 1),
        "experiment": json.loads(experiment.to_json()),
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps(record, indent=2) + "\n")
    beside.rename(place)
    return place
