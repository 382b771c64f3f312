"""Judging: intervals, shares, learners."""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from metaray.algorithms import MAML, NearestNeighbor, ProtoNet
from metaray.algorithms.context import Context, Tensors
from metaray.data import ClassStore, FunctionFamily
from metaray.data.draws import Draws, Split
from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.source import Source
from metaray.data.task import Task
from metaray.episodes import resident
from metaray.episodes.episode import EpisodeSpec, MetaBatch
from metaray.episodes.resident import bring_home
from metaray.episodes.sampler import sample_meta_batch
from metaray.episodes.tensors import Examples
from metaray.errors import InputError
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.learners.learner import Learner
from metaray.models import Conv4
from metaray.records.estimate import Estimate, estimate, paired_difference
from metaray.tasks import Regression
from metaray.training.evaluation import Judge, Scores, evaluate, evaluate_learner, judge_of
from metaray.training.outer_loop import context_of, initial_state
from metaray.training.reduction import LocalReducer, Reducer, TreeNode
from metaray.training.single_queries import single_queries

MakeExperiment = Callable[..., Experiment]
CPU = torch.device("cpu")


def test_interval_by_hand() -> None:
    found = estimate([0.2, 0.4, 0.6, 0.8])
    assert found.mean == pytest.approx(0.5) and found.episodes == 4
    assert found.half_width == pytest.approx(1.959964 * math.sqrt(0.2 / 3) / 2)
    assert (found.low, found.high) == (found.mean - found.half_width, found.mean + found.half_width)
    assert str(Estimate(0.98151, 0.00189, 1000)) == "0.9815 +- 0.0019 (1000 episodes)"


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    draws = [estimate(generator.normal(0.3, 1.0, 400)) for _ in range(400)]
    assert 0.92 <= np.mean([d.low <= 0.3 <= d.high for d in draws]) <= 0.98


def test_paired_difference() -> None:
    generator = np.random.default_rng(1)
    champion = generator.random(100)
    found = paired_difference(champion + 0.125, champion)
    assert found.mean == pytest.approx(0.125) and found.half_width == pytest.approx(0, abs=1e-12)
    # Pairing takes out what makes episodes easy or hard for both.
    noisy = champion + 0.1 + generator.normal(0, 0.01, 100)
    assert paired_difference(noisy, champion).half_width < 0.1 * estimate(champion).half_width


@pytest.mark.parametrize(
    ("challenger", "champion", "mean"),
    [
        ([math.inf, 1.0], [math.inf, 1.0], math.nan),
        ([1.0, 1.0], [math.inf, 1.0], -math.inf),
        ([math.inf, 1.0], [1.0, math.inf], math.nan),
    ],
)
def test_differences_of_infinite_errors(challenger: list[float], champion: list[float], mean: float) -> None:
    assert paired_difference(challenger, champion).mean == pytest.approx(mean, nan_ok=True)


class FakeRank(Reducer):
    """One of several ranks that run one after the other; `sum_` gives the partial buffer of this one."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self.buffers: list[Tensor] = []

    def sum_(self, buffer: Tensor) -> Tensor:
        self.buffers.append(buffer.clone())
        return buffer

    def join(self, nodes: Sequence[TreeNode], count: int) -> Tensor:
        raise AssertionError("judging needs no tree: each score has one rank")


@pytest.mark.parametrize("chunk_size", [1, 3])
@pytest.mark.parametrize("world_size", [2, 3, 9])
def test_ranks_share_the_episodes(world_size: int, chunk_size: int, make_experiment: MakeExperiment) -> None:
    """To the last bit: else another number of workers would choose another best checkpoint."""
    experiment = make_experiment(model=Conv4(channels=8))
    state = initial_state(experiment, CPU)
    context = context_of(experiment, state.network, training=False)
    judge = judge_of(experiment, "meta-test")._replace(episodes=10)
    alone = evaluate(experiment.algorithm, state.meta, context, judge, device=CPU, chunk_size=chunk_size)
    ranks = [FakeRank(rank, world_size) for rank in range(world_size)]
    for rank in ranks:
        evaluate(experiment.algorithm, state.meta, context, judge, device=CPU, chunk_size=chunk_size, reducer=rank)
    joined = Scores.of(torch.stack([rank.buffers[0] for rank in ranks]).sum(0).view(alone.table.shape).numpy())
    loss, score = joined.loss, joined.score
    np.testing.assert_array_equal(joined.table, alone.table)
    np.testing.assert_array_equal(loss, alone.loss)
    np.testing.assert_array_equal(score, alone.score)
    assert all(len(rank.buffers) == 1 for rank in ranks)


class Watched(FunctionFamily):
    """Notes which thread samples, and how far ahead; fails at an episode on request."""

    kind: ClassVar[str] = "watched"
    seen: ClassVar[list[str]] = []
    fails_at: int | None = None

    def sample_task(self, draws: Draws, split: Split, spec: EpisodeSpec) -> Task:
        if len(self.seen) == self.fails_at:
            raise KeyError("no such task")
        self.seen.append(threading.current_thread().name)
        return super().sample_task(draws, split, spec)


class Marked(LocalReducer):
    """Keeps its marks."""

    def __init__(self) -> None:
        self.marks: list[str] = []

    def mark(self, doing: str) -> None:
        self.marks.append(doing)


def sampling() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("sampler")]


def nearest(source: Source, **options: Any) -> Scores:
    context = Context(network=torch.nn.Identity(), ways=1, task=Regression())
    judge = Judge(source, EpisodeSpec(shots=2, queries=2), "meta-val", 8, 0)
    return evaluate(NearestNeighbor(), {}, context, judge, device=CPU, **options)


def test_episodes_are_sampled_ahead_by_a_thread_that_ends() -> None:
    Watched.seen.clear()
    ahead: list[int] = []
    reducer = Marked()
    found = nearest(Watched(), reducer=reducer, progress=lambda done: ahead.append(len(Watched.seen) - done))
    assert len(Watched.seen) == 8 and all(name.startswith("sampler") for name in Watched.seen)
    assert max(ahead) <= 2, "memory holds few episodes"
    assert len(reducer.marks) >= 8 and set(reducer.marks) == {"judging"}
    assert not sampling()
    assert np.array_equal(found.loss, nearest(FunctionFamily()).loss)


@pytest.mark.parametrize(("chunk_size", "together"), [(1, [16, 16, 8]), (3, [15, 15, 10]), (20, [20, 20])])
def test_what_is_drawn_side_by_side_is_sampled_some_at_a_time(
    chunk_size: int, together: list[int], tiny_source: ClassStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    by_row: list[bool] = []
    resident._brought().clear()

    def noted(source: Source, spec: EpisodeSpec, split: Split, seed: int, indices: range, rows: bool) -> MetaBatch:
        asked.append(len(indices))
        by_row.append(rows)
        return sample_meta_batch(source, spec, split, seed, indices, rows=rows)

    monkeypatch.setattr("metaray.training.evaluation.sample_meta_batch", noted)
    context = Context(network=torch.nn.Identity(), ways=3, task=tiny_source.task)
    judge = Judge(tiny_source, EpisodeSpec(ways=3, shots=1, queries=2), "meta-val", 40, 0, first=5)
    told: list[int] = []
    found = evaluate(NearestNeighbor(), {}, context, judge, device=CPU, chunk_size=chunk_size, progress=told.append)
    assert asked == together and told[-1] == 40 and len(told) == -(-40 // chunk_size)
    bring_home(tiny_source, CPU, "device")
    at_home = evaluate(NearestNeighbor(), {}, context, judge, device=CPU, chunk_size=chunk_size)
    assert by_row == [False] * len(together) + [True] * len(together) and np.array_equal(at_home.table, found.table)
    resident._brought().clear()
    asked.clear()
    monkeypatch.setattr("metaray.training.evaluation.TOGETHER_NUMBERS", 2 * 9 * 16 * 16)
    evaluate(NearestNeighbor(), {}, context, judge, device=CPU, chunk_size=chunk_size)
    assert max(asked) == max(2, chunk_size), "large episodes are few"
    monkeypatch.setattr(ClassStore, "sample_tasks", Source.sample_tasks)
    asked.clear()
    alone = evaluate(NearestNeighbor(), {}, context, judge, device=CPU, chunk_size=chunk_size)
    assert max(asked) == min(chunk_size, 40)
    assert np.array_equal(found.loss, alone.loss) and np.array_equal(found.score, alone.score)


def test_what_sampling_raises_comes_up_and_its_thread_ends() -> None:
    Watched.seen.clear()
    with pytest.raises(KeyError, match="no such task"):
        nearest(Watched(fails_at=5))
    assert len(Watched.seen) == 5 and not sampling()


def test_the_thread_ends_when_judging_fails() -> None:
    Watched.seen.clear()

    def interrupted(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nearest(Watched(), progress=interrupted)
    assert len(Watched.seen) <= 3 and not sampling()


def test_judging_leaves_no_trace_and_repeats(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment()
    state = initial_state(experiment, CPU)
    before = {name: t.detach().clone() for name, t in state.meta.items()}
    context, judge = context_of(experiment, state.network, training=False), judge_of(experiment, "meta-val")
    one, two = (evaluate(experiment.algorithm, state.meta, context, judge, device=CPU) for _ in range(2))
    assert np.array_equal(one.loss, two.loss) and len(one.loss) == len(one.score) == 6
    assert one.loss.dtype == np.float64 and one.estimate.episodes == 6
    assert all(torch.equal(before[name], state.meta[name]) for name in before)


def test_episodes_of_judging_do_not_depend_on_the_training_seed(make_experiment: MakeExperiment) -> None:
    pixels = NearestNeighbor()
    scores = []
    for experiment in (make_experiment(), make_experiment(seed=5), make_experiment(evaluation=Evaluation(seed=5))):
        context = context_of(experiment, torch.nn.Identity(), training=False)
        judge = judge_of(experiment, "meta-test")._replace(episodes=8)
        scores.append(evaluate(pixels, {}, context, judge, device=CPU).loss)
    assert np.array_equal(scores[0], scores[1]) and not np.array_equal(scores[0], scores[2])


def test_splits_have_their_own_numbers_of_episodes(make_experiment: MakeExperiment) -> None:
    val, test = (judge_of(make_experiment(), split) for split in ("meta-val", "meta-test"))
    assert (val.split, val.episodes, test.split, test.episodes) == ("meta-val", 6, "meta-test", 8)


def learner_of(experiment: Experiment) -> Learner:
    meta = {name: t.detach() for name, t in initial_state(experiment, CPU).meta.items()}
    source = experiment.source
    return Learner(experiment.algorithm, experiment.model, meta, source.preprocessing, experiment.eval_spec)


@pytest.mark.parametrize("algorithm", [MAML(inner_lr=0.1, batch_norm="transductive"), ProtoNet(batch_norm="inductive")])
def test_a_learner_is_judged_as_its_run_judged_it(algorithm: MAML | ProtoNet, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(algorithm=algorithm)
    state = initial_state(experiment, CPU)
    context, judge = context_of(experiment, state.network, training=False), judge_of(experiment, "meta-test")
    expected = evaluate(algorithm, state.meta, context, judge, device=CPU)
    found = evaluate_learner(learner_of(experiment), experiment, "meta-test")
    assert np.array_equal(found.loss, expected.loss) and np.array_equal(found.score, expected.score)


class Counting(ProtoNet):
    """Notes on how many threads its kernels run."""

    kind: ClassVar[str] = "counting"
    seen: ClassVar[set[int]] = set()

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        self.seen.add(torch.get_num_threads())
        return super().adapt(meta, support, context)


def test_a_learner_is_judged_on_as_many_threads_as_its_run_has(make_experiment: MakeExperiment) -> None:
    """Not on those that the process happens to have, which it keeps."""
    experiment = make_experiment(algorithm=ProtoNet(batch_norm="transductive"), threads_per_worker=2)
    learner = replace(learner_of(experiment), algorithm=Counting(batch_norm="transductive"))
    for judge in (
        lambda: evaluate_learner(learner, experiment, "meta-val"),
        lambda: single_queries(learner, experiment),
    ):
        Counting.seen.clear()
        judge()
        assert Counting.seen == {2} and torch.get_num_threads() == 1


def test_zero_inner_steps_on_request(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment()
    learner = learner_of(experiment)
    plain, none = (evaluate_learner(learner, experiment, "meta-test", inner_steps=n) for n in (None, 0))
    assert not np.array_equal(plain.loss, none.loss)


def test_a_run_that_maps_over_chunks_and_its_learner_have_the_same_scores(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(chunk_size=3, model=Conv4(channels=8))
    state = initial_state(experiment, CPU)
    context, judge = context_of(experiment, state.network, training=False), judge_of(experiment, "meta-test")
    expected = evaluate(experiment.algorithm, state.meta, context, judge, device=CPU, chunk_size=3)
    found = evaluate_learner(learner_of(experiment), experiment, "meta-test")
    assert np.array_equal(found.loss, expected.loss)


class Branching(ProtoNet):
    """Looks at values, which torch.vmap cannot; or else is wrong there without a word."""

    kind: ClassVar[str] = "branching"
    raises: bool = True

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        adapted = super().adapt(meta, support, context)
        if context.batched and not self.raises:
            return {name: -tensor for name, tensor in adapted.items()}
        if self.raises and bool(support.x.sum() > 0):
            return adapted
        return adapted


@pytest.mark.parametrize("raises", [True, False])
def test_a_learner_that_cannot_be_mapped_over_is_judged_one_by_one(
    raises: bool, make_experiment: MakeExperiment
) -> None:
    """As a champion that was trained on a CPU may be, where its challenger's run had a GPU and mapped."""
    experiment = make_experiment(algorithm=ProtoNet(batch_norm="transductive"))
    learner = replace(learner_of(experiment), algorithm=Branching(batch_norm="transductive", raises=raises))
    expected = evaluate_learner(learner, experiment, "meta-test")
    found = evaluate_learner(learner, make_experiment(chunk_size=4), "meta-test")
    assert np.array_equal(found.loss, expected.loss)


@pytest.mark.parametrize("raises", [True, False])
def test_so_it_is_where_the_first_episodes_are_unequal(raises: bool, make_experiment: MakeExperiment) -> None:
    """These are not mapped over, whatever the learner; later ones are."""
    judged = Evaluation(episodes=EpisodeSpec(ways=(2, 3), shots=1, queries=2), test_episodes=16, seed=1)
    experiment = make_experiment(algorithm=ProtoNet(batch_norm="transductive"), evaluation=judged)
    judge = judge_of(experiment, "meta-test")
    sizes = [
        len(sample_meta_batch(judge.source, judge.spec, judge.split, judge.seed, range(i, i + 2)).stacks)
        for i in range(0, 16, 2)
    ]
    assert sizes[0] == 2 and 1 in sizes
    learner = replace(learner_of(experiment), algorithm=Branching(batch_norm="transductive", raises=raises))
    expected = evaluate_learner(learner, experiment, "meta-test")
    found = evaluate_learner(learner, experiment.model_copy(update={"chunk_size": 2}), "meta-test")
    assert np.array_equal(found.loss, expected.loss)


@pytest.mark.gpu
def test_a_gpu_judges_as_the_cpu_does(make_experiment: MakeExperiment) -> None:
    """But for rounding; and the process's own kernels come back."""
    experiment = make_experiment(model=Conv4(channels=8))
    learner, before = learner_of(experiment), torch.backends.cudnn.deterministic
    here = evaluate_learner(learner, experiment, "meta-test")
    there = evaluate_learner(learner, experiment, "meta-test", device=torch.device("cuda"))
    np.testing.assert_allclose(there.loss, here.loss, rtol=1e-3)
    assert torch.backends.cudnn.deterministic == before
    assert all(tensor.device == CPU for tensor in learner.meta.values())


def test_learners_that_do_not_fit(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment()
    other = learner_of(make_experiment(episodes={"ways": 4, "shots": 1, "queries": 1}))
    with pytest.raises(InputError, match="the learner is 4-way, the evaluation 3-way"):
        evaluate_learner(other, experiment, "meta-test")
    small = replace(learner_of(experiment), preprocessing=ImagePreprocessing(height=8, width=8))
    with pytest.raises(InputError, match=r"takes inputs \(1, 8, 8\), the source yields \(1, 16, 16\)"):
        evaluate_learner(small, experiment, "meta-test")
