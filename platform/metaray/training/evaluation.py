"""Judging meta-parameters on episodes: per-episode scores, intervals, paired differences."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.data.draws import Split
from metaray.data.source import Source
from metaray.episodes.episode import EpisodeSpec, MetaBatch
from metaray.episodes.prefetch import Arrival, threaded_stream
from metaray.episodes.sampler import sample_meta_batch, share_of
from metaray.episodes.tensors import chunks
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.learners.learner import Learner
from metaray.records.estimate import Estimate, estimate
from metaray.training.device import execution
from metaray.training.reduction import LocalReducer, Reducer


class Scores(NamedTuple):
    """Per-episode results, in the order of the episodes' indices.

    Attributes:
        loss: [E] float64.
        score: [E] float64, accuracy in [0, 1], or in regression the mean squared error.
    """

    loss: NDArray[np.float64]
    score: NDArray[np.float64]

    @property
    def estimate(self) -> Estimate:
        """The mean score and its interval."""
        return estimate(self.score)


class Judge(NamedTuple):
    """Which episodes to judge on: the first `episodes` of `split`.

    Attributes:
        source: where tasks come from.
        spec: ways, shots, queries.
        split: "meta-val" or "meta-test".
        episodes: how many.
        seed: of the sequence of episodes.
    """

    source: Source
    spec: EpisodeSpec
    split: Split
    episodes: int
    seed: int


def judge_of(experiment: Experiment, split: Split) -> Judge:
    """The episodes on which an experiment is judged; they do not depend on its training seed."""
    plan = experiment.evaluation
    count = plan.val_episodes if split == "meta-val" else plan.test_episodes
    return Judge(experiment.source, experiment.eval_spec, split, count, plan.seed)


def evaluate_learner(
    learner: Learner,
    experiment: Experiment,
    split: Split,
    *,
    inner_steps: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Judge a learner in this process, on the episodes and in the precision of an experiment, on as many threads.

    Args:
        learner: To judge.
        experiment: Says on what, and how.
        split: "meta-val" or "meta-test".
        inner_steps: Instead of the learner's own number.
        progress: Told the number of episodes judged so far.

    Raises:
        InputError: if the learner is fixed to other ways, or takes inputs or targets of another shape.
    """
    context = judging_context(learner, experiment, inner_steps=inner_steps)
    judge, device = judge_of(experiment, split), torch.device("cpu")
    with execution(experiment, device):
        return evaluate(learner.algorithm, learner.meta, context, judge, device=device, progress=progress)


def judging_context(learner: Learner, experiment: Experiment, *, inner_steps: int | None = None) -> Context:
    """The context in which a learner is judged as an experiment says.

    Raises:
        InputError: if the learner is fixed to other ways, or takes inputs or targets of another shape.
    """
    spec, shape = experiment.eval_spec, experiment.source.feature_shape
    if learner.target_size != experiment.source.target_size:
        raise InputError(
            f"the learner predicts {_targets(learner.target_size)}, the source has "
            f"{_targets(experiment.source.target_size)} as targets"
        )
    if learner.ways not in (None, spec.ways):
        raise InputError(f"the learner is {learner.ways}-way, the evaluation {spec.ways}-way")
    if learner.preprocessing.feature_shape != shape:
        raise InputError(f"the learner takes inputs {learner.preprocessing.feature_shape}, the source yields {shape}")
    return replace(
        learner.context(spec.ways, inner_steps=inner_steps),
        precision=experiment.precision.dtype,
        channels_last=experiment.precision.channels_last,
    )


def _targets(size: int | None) -> str:
    return "classes" if size is None else f"vectors of {size} {'value' if size == 1 else 'values'}"


def evaluate(
    algorithm: Algorithm,
    meta: Tensors,
    context: Context,
    judge: Judge,
    *,
    device: torch.device,
    chunk_size: int = 1,
    reducer: Reducer | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Adapt to each episode's support and score its query.

    Ranks take contiguous shares; every rank gets all scores, whatever their number. A thread of each samples ahead, and
    ends with this call, however that ends.

    Args:
        algorithm: what adapts and predicts.
        meta: the meta-parameters, on `device`.
        context: an evaluation context (`training=False`); `batched` is set here.
        judge: which episodes.
        device: where to compute.
        chunk_size: episodes at once.
        reducer: of this run's ranks; None for one process.
        progress: Told the number of episodes judged so far, those of the other ranks by estimate.
    """
    reducer = reducer or LocalReducer()
    mine = share_of(0, judge.episodes, reducer.rank, reducer.world_size, chunk_size=chunk_size)
    table = torch.zeros(2, judge.episodes, dtype=torch.float64, device=device)
    frozen = {name: tensor.detach() for name, tensor in meta.items()}
    context = context.with_batched(chunk_size > 1)
    reducer.mark("judging")
    with closing(_stream(judge, mine, chunk_size)) as stream, torch.no_grad():
        for _, batch, _ in stream:
            here = slice(int(batch.index[0]), int(batch.index[-1]) + 1)
            (chunk,) = chunks(batch, chunk_size, device, judge.source, judge.split)
            outcome = algorithm.outcomes(frozen, chunk, context)
            table[0, here], table[1, here] = outcome.loss.double(), outcome.score.double()
            reducer.mark("judging")
            if progress is not None:
                progress(judge.episodes * (here.stop - mine.start) // len(mine))
    loss, score = reducer.sum_(table.flatten()).view(2, judge.episodes).cpu().numpy()
    return Scores(loss, score)


def _stream(judge: Judge, mine: range, chunk_size: int) -> Generator[Arrival, None, None]:
    """The episodes of `mine`, a chunk at a time, sampled ahead by a background thread."""
    starts = mine[::chunk_size]

    def sample(place: int) -> MetaBatch:
        indices = range(starts[place], min(starts[place] + chunk_size, mine.stop))
        return sample_meta_batch(judge.source, judge.spec, judge.split, judge.seed, indices)

    return threaded_stream(sample, start=0, stop=len(starts))
