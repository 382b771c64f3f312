"""A few outer steps of every algorithm: two workers give one worker's bits; what is saved adapts as before."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaray.data.function_family import FunctionFamily
from metaray.data.preprocessing import VectorPreprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.prefetch import Arrival
from metaray.episodes.sampler import sample_meta_batch, share_of
from metaray.episodes.tensors import Examples
from metaray.experiment.experiment import Experiment
from metaray.learners.learner import Learner
from metaray.learners.loading import load_learner
from metaray.models import MLP
from metaray.records.result import parameters_sha256
from metaray.records.train_state import TrainState
from metaray.training.outer_loop import initial_state, outer_loop
from metaray.training.reduction import LocalReducer, TreeNode, TreeSum
from tests.conformance.bench import PROTOCOLS, Bench, Trial, every
from tests.thresholds import Thresholds

MakeExperiment = Callable[..., Experiment]
CPU = torch.device("cpu")
STEPS, EPISODES = 2, 5


class Caught(Exception):
    """A rank's share of the sum; it never gets to the update."""

    def __init__(self, nodes: Sequence[TreeNode]) -> None:
        self.nodes = nodes


class Catch(LocalReducer):
    """A rank that hands over its nodes."""

    def join(self, nodes: Sequence[TreeNode], count: int) -> Tensor:
        raise Caught(nodes)


class Told(LocalReducer):
    """A rank that is told the root of the tree."""

    def __init__(self, root: Tensor) -> None:
        self.root = root

    def join(self, nodes: Sequence[TreeNode], count: int) -> Tensor:
        return self.root


def experiment_of(trial: Trial, make_experiment: MakeExperiment, chunk_size: int) -> Experiment:
    changes: dict[str, Any] = {"meta_batch_size": EPISODES, "num_steps": STEPS, "chunk_size": chunk_size}
    if trial.task == "regression":
        changes |= {"source": FunctionFamily(), "episodes": EpisodeSpec(ways=1, shots=5, queries=4)}
    if trial.task == "binary":
        changes |= {"source": Thresholds(), "episodes": EpisodeSpec(shots=3, queries=4)}
    algorithm = Bench(trial).algorithm
    return make_experiment(algorithm=algorithm, model=MLP(hidden=(6,)), **changes)


def advance(experiment: Experiment, state: TrainState, reducer: LocalReducer, rank: int, ranks: int) -> None:
    """One outer step of a rank, from its share of the meta-batch."""
    assert experiment.chunk_size is not None
    share = share_of(state.step, EPISODES, rank, ranks, chunk_size=experiment.chunk_size)
    batch = sample_meta_batch(experiment.source, experiment.episodes, "meta-train", experiment.seed, share)
    list(outer_loop(experiment, state, [Arrival(state.step, batch, 0.0)], reducer, CPU))


def advance_by_two(experiment: Experiment, state: TrainState) -> None:
    """The same by two ranks, one after the other: each adds up its share, both are joined, then one updates."""
    tree = TreeSum()
    for rank in range(2):
        with pytest.raises(Caught) as caught:
            advance(experiment, state, Catch(), rank, 2)
        for level, place, value in caught.value.nodes:
            tree.push(level, place, None if value is None else value.clone())
    assert experiment.chunk_size is not None
    tree.close(-(-EPISODES // experiment.chunk_size))
    (root,) = tree.nodes
    assert root.value is not None
    advance(experiment, state, Told(root.value), 0, 2)


@every(trained=True)
def test_two_workers_give_the_bits_of_one(trial: Trial, make_experiment: MakeExperiment) -> None:
    """One episode a chunk under one protocol, two under the other, of five: shares of 2 and 3, or of 2 and 2 + 1."""
    experiment = experiment_of(trial, make_experiment, chunk_size=PROTOCOLS.index(trial.protocol) + 1)
    alone, together = initial_state(experiment, CPU), initial_state(experiment, CPU)
    before = parameters_sha256(alone.meta)
    for _ in range(STEPS):
        advance(experiment, alone, LocalReducer(), 0, 1)
        advance_by_two(experiment, together)
    assert alone.step == together.step == STEPS
    assert before != parameters_sha256(alone.meta) == parameters_sha256(together.meta)


def learner_of(trial: Trial, make_experiment: MakeExperiment) -> Learner:
    if trial.task == "regression":
        preprocessing: Any = VectorPreprocessing(size=1)
    else:
        preprocessing = make_experiment().source.preprocessing
    spec = EpisodeSpec(ways=3 if trial.task == "classification" else 1, shots=2, queries=2)
    bench = Bench(trial, model=MLP(hidden=(6,)), feature=preprocessing.feature_shape, dtype=torch.float32)
    return Learner(
        bench.algorithm,
        MLP(hidden=(6,)),
        {name: tensor.detach() for name, tensor in bench.meta.items()},
        preprocessing,
        spec,
        seed=1,
        task=bench.task_shape.task,
        classes=bench.task_shape.classes,
    )


@pytest.mark.filterwarnings("ignore::metaray.errors.BatchMatters")
@every()
def test_a_saved_learner_adapts_to_the_same_bits(trial: Trial, make_experiment: MakeExperiment, tmp_path: Path) -> None:
    learner = learner_of(trial, make_experiment)
    learner.save(tmp_path)
    loaded = load_learner(tmp_path)
    assert loaded.algorithm == learner.algorithm and loaded.task_shape == learner.task_shape
    assert parameters_sha256(loaded.meta) == parameters_sha256(learner.meta)
    if trial.task == "regression":
        x, y, new = (torch.linspace(low, 1, count)[:, None] for low, count in ((-1, 6), (-3, 6), (0, 4)))
        found = [values(each, Examples(x, y), new) for each in (learner, loaded)]
    else:
        images = np.random.default_rng(0).integers(0, 256, (11, 16, 16), dtype=np.uint8)
        labels = ["b", "a", "c", "b", "a", "c"] if trial.task == "classification" else [1, 0, 0, 1, 1, 0]
        found = [each.adapt(images[:6], labels).predict_proba(images[6:]) for each in (learner, loaded)]
    assert np.array_equal(found[0], found[1]) and np.isfinite(found[0]).all()


def values(learner: Learner, support: Examples, x: Tensor) -> NDArray[np.float32]:
    context = learner.context(1)
    with torch.no_grad():
        adapted = learner.algorithm.adapt(learner.meta, support, context)
        found: NDArray[np.float32] = learner.algorithm.predict(learner.meta, adapted, x, context).numpy()
    return found
