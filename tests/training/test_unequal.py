"""Tasks of unequal size: computed one by one in their order, whatever the workers and the chunks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from metaray.algorithms import R2D2, ProtoMAML, ProtoNet
from metaray.algorithms.algorithm import Algorithm
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.prefetch import Arrival
from metaray.episodes.sampler import sample_meta_batch, share_of
from metaray.episodes.tensors import chunks
from metaray.experiment import Experiment
from metaray.models import MLP
from metaray.records.result import parameters_sha256
from metaray.records.train_state import TrainState
from metaray.training.evaluation import Judge, evaluate
from metaray.training.outer_loop import context_of, initial_state, outer_loop
from metaray.training.reduction import LocalReducer, TreeSum
from tests.conformance.test_runs import Catch, Caught, Told

CPU = torch.device("cpu")
SPECS = {
    "ranges": EpisodeSpec(ways=(2, 5), shots=(1, 3), queries=(1, 2)),
    "rest": EpisodeSpec(ways=(2, 3), shots=(1, 5), queries="rest"),
    "meta-dataset": EpisodeSpec.meta_dataset(ways=(2, 6), max_support=20),
}
ALGORITHMS: list[Algorithm] = [ProtoNet(), ProtoMAML(inner_steps=1), R2D2()]
EPISODES, STEPS = 6, 2

MakeExperiment = Callable[..., Experiment]


def experiment_of(make_experiment: MakeExperiment, spec: str, algorithm: Algorithm, chunk_size: int) -> Experiment:
    changes: dict[str, Any] = {"meta_batch_size": EPISODES, "num_steps": STEPS, "chunk_size": chunk_size}
    return make_experiment(algorithm=algorithm, model=MLP(hidden=(6,)), episodes=SPECS[spec], **changes)


def advance(experiment: Experiment, state: TrainState, reducer: LocalReducer, rank: int, ranks: int) -> float:
    share = share_of(state.step, EPISODES, rank, ranks, chunk_size=experiment.chunk_size or 1)
    batch = sample_meta_batch(experiment.source, experiment.episodes, "meta-train", experiment.seed, share)
    (step,) = outer_loop(experiment, state, [Arrival(state.step, batch, 0.0)], reducer, CPU)
    return step.loss


def advance_by(ranks: int, experiment: Experiment, state: TrainState) -> None:
    """One step of several ranks, one after the other: each adds up its share, all are joined, then one updates."""
    tree = TreeSum()
    for rank in range(ranks):
        with pytest.raises(Caught) as caught:
            advance(experiment, state, Catch(), rank, ranks)
        for level, place, value in caught.value.nodes:
            tree.push(level, place, None if value is None else value.clone())
    tree.close(-(-EPISODES // (experiment.chunk_size or 1)))
    (root,) = tree.nodes
    assert root.value is not None
    advance(experiment, state, Told(root.value), 0, ranks)


@pytest.mark.parametrize("chunk_size", [1, 2])
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.kind)
@pytest.mark.parametrize("spec", SPECS)
def test_any_number_of_workers_gives_the_same_bits(
    make_experiment: MakeExperiment, spec: str, algorithm: Algorithm, chunk_size: int
) -> None:
    experiment = experiment_of(make_experiment, spec, algorithm, chunk_size)
    states = {ranks: initial_state(experiment, CPU) for ranks in (1, 2, 3)}
    before = parameters_sha256(states[1].meta)
    for _ in range(STEPS):
        advance(experiment, states[1], LocalReducer(), 0, 1)
        for ranks in (2, 3):
            advance_by(ranks, experiment, states[ranks])
    found = {parameters_sha256(state.meta) for state in states.values()}
    assert len(found) == 1 and before not in found


def test_a_chunk_of_unequal_episodes_is_computed_one_by_one(make_experiment: MakeExperiment) -> None:
    experiment = experiment_of(make_experiment, "ranges", ProtoNet(), 3)
    batch = sample_meta_batch(experiment.source, experiment.episodes, "meta-train", 0, range(EPISODES))
    found = list(chunks(batch, 3, CPU, experiment.source, "meta-train"))
    assert [len(parts) for parts in found] == [3, 3] and all(part.seed.ndim == 0 for parts in found for part in parts)
    context = context_of(experiment, initial_state(experiment, CPU).network, training=True)
    ways = [context.of(part).ways for parts in found for part in parts]
    assert ways == [len(stack.task.class_ids[0]) for stack in batch.stacks for _ in stack.index]
    assert len(set(ways)) > 1


def test_the_gradient_is_the_mean_over_episodes(make_experiment: MakeExperiment) -> None:
    """One step of plain descent: chunks and single episodes move the parameters alike, up to rounding."""
    moved = []
    for chunk_size in (1, 3):
        experiment = experiment_of(make_experiment, "ranges", ProtoNet(), chunk_size)
        state = initial_state(experiment, CPU)
        loss = advance(experiment, state, LocalReducer(), 0, 1)
        moved.append((loss, {name: tensor.detach() for name, tensor in state.meta.items()}))
    assert moved[0][0] == pytest.approx(moved[1][0], rel=1e-6)
    for name, tensor in moved[0][1].items():
        torch.testing.assert_close(tensor, moved[1][1][name])


@pytest.mark.parametrize("chunk_size", [1, 4])
def test_judging_unequal_tasks(make_experiment: MakeExperiment, chunk_size: int) -> None:
    experiment = experiment_of(make_experiment, "meta-dataset", ProtoNet(), 1)
    state = initial_state(experiment, CPU)
    judge = Judge(experiment.source, SPECS["meta-dataset"], "meta-val", 7, seed=3)
    context = context_of(experiment, state.network, training=False)
    found = evaluate(experiment.algorithm, state.meta, context, judge, device=CPU, chunk_size=chunk_size)
    alone = [
        evaluate(experiment.algorithm, state.meta, context, judge._replace(first=i, episodes=1), device=CPU)
        for i in range(7)
    ]
    assert found.loss.tolist() == pytest.approx([float(one.loss[0]) for one in alone])
    assert found.score.tolist() == [float(one.score[0]) for one in alone]
