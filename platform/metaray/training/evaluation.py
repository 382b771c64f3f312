"""Judging meta-parameters on episodes: per-episode scores, intervals, paired differences."""

import hashlib
import re
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.config import difference
from metaray.data.draws import Split
from metaray.data.source import Source
from metaray.episodes.episode import EpisodeSpec, MetaBatch
from metaray.episodes.prefetch import Arrival, threaded_stream
from metaray.episodes.resident import lives_on
from metaray.episodes.sampler import sample_meta_batch, share_of
from metaray.episodes.tensors import chunks
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.learners.learner import Learner
from metaray.phases import in_phase
from metaray.records.estimate import Estimate, estimate
from metaray.training.device import execution
from metaray.training.outer_loop import chunk_size_of
from metaray.training.reduction import LocalReducer, Reducer

CPU = torch.device("cpu")
FACTS = 5
"""Number of rows of `Scores.table` before the further scores of the task kind."""
MAPPED_ALIKE = 1e-3
"""Relative difference of a loss up to which chunks count as rounding alone."""
TOGETHER, TOGETHER_NUMBERS = 16, 2**20
"""Episodes that a source draws side by side are sampled so many at a time, or as many as have so many numbers."""
TRIED = 32
"""Episodes among which two neighbours of equal shape are looked for."""
SHOWN = 200
"""Letters of a preprocessing's field in a message: a tokenizer has a million."""


class Scores(NamedTuple):
    """Losses and scores of single episodes, in the order of their indices.

    Attributes:
        loss: Query loss of each episode, [E] float64.
        score: Query score of each episode, [E] float64, as the task kind defines it.
        support: Number of support examples of each episode, [E].
        query: Number of query examples of each episode, [E].
        group: Class id of the first label of each episode, [E]; that of the group if tasks belong to groups.
        further: Further scores `TaskKind.further` of each episode, [F, E] float64.
    """

    loss: NDArray[np.float64]
    score: NDArray[np.float64]
    support: NDArray[np.float64]
    query: NDArray[np.float64]
    group: NDArray[np.float64]
    further: NDArray[np.float64]

    @classmethod
    def of(cls, table: NDArray[np.float64]) -> "Scores":
        """Read a table: the inverse of `table`."""
        loss, score, support, query, group = table[:FACTS]
        return cls(loss, score, support, query, group, table[FACTS:])

    @property
    def table(self) -> NDArray[np.float64]:
        """All fields as one table [5 + F, E]; whole numbers are exact."""
        return np.concatenate([np.stack(self[:FACTS]), self.further])

    @property
    def estimate(self) -> Estimate:
        """The mean score with its 95% interval."""
        return estimate(self.score)


class Judge(NamedTuple):
    """The episodes to evaluate on: a number of episodes of `split`, by default its first ones.

    Attributes:
        source: Source of the tasks.
        spec: Ways, shots and queries of the episodes.
        split: "meta-val" or "meta-test".
        episodes: Number of episodes.
        seed: Seed of the sequence of episodes.
        first: Index of the first episode.
    """

    source: Source
    spec: EpisodeSpec
    split: Split
    episodes: int
    seed: int
    first: int = 0


def judge_of(experiment: Experiment, split: Split) -> Judge:
    """The episodes that an experiment is evaluated on; they do not depend on its training seed."""
    plan = experiment.evaluation
    count = plan.val_episodes if split == "meta-val" else plan.test_episodes
    return Judge(experiment.source, experiment.eval_spec, split, count, plan.seed)


def evaluate_learner(
    learner: Learner,
    experiment: Experiment,
    split: Split,
    *,
    device: torch.device = CPU,
    episodes: range | None = None,
    inner_steps: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Evaluate a learner in this process, on the episodes, precision and threads of an experiment.

    Episodes are mapped over in chunks as in a run of the experiment, if the learner allows it.

    Args:
        learner: Learner to judge.
        experiment: Experiment with the source and the protocol.
        split: Split whose episodes are used: "meta-val" or "meta-test".
        device: Device to compute on.
        episodes: Range of episode indices, which begins at a multiple of the chunk size; None takes all of the
            experiment's.
        inner_steps: Number of inner steps; None takes the learner's own number.
        progress: Function that is called with the number of episodes done so far.

    Raises:
        InputError: If the learner is fixed to another number of ways, or takes inputs or targets of another shape.
    """
    judge = judge_of(experiment, split)
    if episodes is not None:
        judge = judge._replace(first=episodes.start, episodes=len(episodes))
    meta = {name: tensor.detach().to(device) for name, tensor in learner.meta.items()}
    with execution(experiment, device):
        context = judging_context(learner, experiment, inner_steps=inner_steps, device=device)
        size = chunk_size_of(experiment, device)
        if size > 1 and not can_be_mapped(learner.algorithm, meta, context, judge, device):
            size = 1
        return evaluate(learner.algorithm, meta, context, judge, device=device, chunk_size=size, progress=progress)


def can_be_mapped(algorithm: Algorithm, meta: Tensors, context: Context, judge: Judge, device: torch.device) -> bool:
    """Whether two episodes have the same losses when they are mapped over together and one by one.

    A run's own network was checked before training, but a learner may come from a run that mapped over no episodes. If
    no two neighbouring episodes have equal shape, the answer is no, since hardly any would be mapped over.
    """
    first = next((first for first in range(0, TRIED, 2) if _are_alike(judge, first)), None)
    if first is None:
        return False
    few = context.inner_steps if context.inner_steps == 0 else 1  # rounding makes more of them differ
    context = replace(context, precision="float32", inner_steps=few if algorithm.gradient_steps else None)
    judge = judge._replace(first=first, episodes=2)
    alone = evaluate(algorithm, meta, context, judge, device=device).loss
    try:
        together = evaluate(algorithm, meta, context, judge, device=device, chunk_size=2).loss
    except RuntimeError:  # torch.vmap has no rule for something
        return False
    return not np.isfinite(alone).all() or bool(np.allclose(together, alone, rtol=MAPPED_ALIKE, atol=1e-5))


def _are_alike(judge: Judge, first: int) -> bool:
    """Whether an episode and the next are of equal shape, so that they would be mapped over."""
    batch = sample_meta_batch(judge.source, judge.spec, judge.split, judge.seed, range(first, first + 2))
    return len(batch.stacks) == 1


def require_fit(learner: Learner, experiment: Experiment) -> None:
    """Check that a learner can be evaluated on the episodes of an experiment.

    Raises:
        InputError: If it is fixed to another number of ways, or takes inputs or targets of another shape.
    """
    spec, shape = experiment.eval_spec, experiment.source.feature_shape
    if not learner.task.is_alike(experiment.source.task):
        pair = learner.task, experiment.source.task
        mine, theirs = map(repr if str(pair[0]) == str(pair[1]) else str, pair)
        raise InputError(f"the learner is for {mine}, the source yields {theirs}")
    if learner.ways not in (None, spec.fixed_ways):
        asked = f"of {spec.ways_in_words}" if spec.fixed_ways is None else f"{spec.fixed_ways}-way"
        raise InputError(f"the learner is {learner.ways}-way, the evaluation {asked}")
    if learner.preprocessing.feature_shape != shape:
        raise InputError(f"the learner takes inputs {learner.preprocessing.feature_shape}, the source yields {shape}")


def require_same_preparation(learner: Learner, source: Source) -> None:
    """Check that a source prepares its inputs as those that a learner was trained on.

    Raises:
        InputError: If it does not; the message names what differs.
    """
    place = difference(learner.preprocessing, source.preprocessing)
    if place is not None:
        one, other = (_at(prepared, place) for prepared in (learner.preprocessing, source.preprocessing))
        raise InputError(
            f"the source prepares its inputs otherwise than the learner: {place or 'kind'} is {other}, the learner's "
            f"is {one}; judge it on data that were imported as those it was trained on"
        )


def _at(preprocessing: object, place: str) -> str:
    if not place:
        return type(preprocessing).__name__
    found: object = preprocessing
    for name in re.split(r"\W", place):
        found = getattr(found, name, found)
    text = str(found)
    if len(text) <= SHOWN:
        return text
    return f"{text[:SHOWN]}... ({len(text)} letters, SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:12]}...)"


def judging_context(
    learner: Learner, experiment: Experiment, *, inner_steps: int | None = None, device: torch.device = CPU
) -> Context:
    """The context in which a learner is judged on `device` as an experiment says.

    Raises:
        InputError: If the learner is fixed to other ways, or takes inputs or targets of another shape.
    """
    require_fit(learner, experiment)
    context = learner.context(learner.task.labels(experiment.eval_spec.most_ways), inner_steps=inner_steps)
    return replace(
        context,
        task=experiment.source.task,  # which says what judges
        network=context.network.to(device),
        precision=experiment.precision.dtype,
        channels_last=experiment.precision.channels_last,
    )


@in_phase("evaluation")
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
    """Adapt to each episode's support set and score its query set.

    Ranks take contiguous shares, and every rank receives all scores, whatever the number of ranks. Each rank samples
    ahead in a thread, which ends with this call, however it ends.

    Args:
        algorithm: Algorithm that adapts and predicts.
        meta: The meta-parameters, on `device`.
        context: Context of evaluation (`training=False`); `batched` is set here.
        judge: Episodes to evaluate on.
        device: Device to compute on.
        chunk_size: Number of episodes that are computed together.
        reducer: Reducer over this run's ranks; None for a single process.
        progress: Function that is called with the number of episodes done so far; those of other ranks are estimated.
    """
    reducer = reducer or LocalReducer()
    mine = share_of(0, judge.episodes, reducer.rank, reducer.world_size, chunk_size=chunk_size)
    further = len(context.task.further)
    table = torch.zeros(FACTS + further, judge.episodes, dtype=torch.float64, device=device)
    context = replace(context, further=True)
    frozen = {name: tensor.detach() for name, tensor in meta.items()}
    reducer.mark("judging")
    rows = lives_on(judge.source, device)
    with closing(_stream(judge, mine, chunk_size, rows=rows)) as stream, torch.no_grad():
        done = mine.start
        for arrival in stream:
            table[2:FACTS, done : done + len(arrival.batch)] = _facts(arrival.batch).to(device)
            for chunk in chunks(arrival.batch, chunk_size, device, judge.source, judge.split):
                found = [algorithm.outcomes(frozen, some, context.of(some)) for some in chunk]
                scores = torch.cat([_whole(outcome.score, further) for outcome in found]).double()
                here = slice(done, done := done + len(scores))
                table[0, here] = torch.cat([outcome.loss for outcome in found]).double()
                table[1, here], table[FACTS:, here] = scores[:, 0], scores[:, 1:].T
                reducer.mark("judging")
                if progress is not None:
                    progress(judge.episodes * (done - mine.start) // len(mine))
    return Scores.of(reducer.sum_(table.flatten()).view(table.shape).cpu().numpy())


def _whole(score: Tensor, further: int) -> Tensor:
    """[B, 1 + F] of what an algorithm gave; one that scores by itself, [B], does not know the further ones."""
    if score.ndim > 1:
        return score
    return torch.cat([score[:, None], score.new_full((len(score), further), torch.nan)], dim=1)


def _facts(batch: MetaBatch) -> Tensor:
    """[3, B]: numbers of support and query examples, and the id of the class behind the first label."""
    each = [(s.task.support.y.shape[1], s.task.query.y.shape[1], one) for s in batch.stacks for one in s.task.class_ids]
    return torch.tensor([[support, query, ids[0]] for support, query, ids in each], dtype=torch.float64).T


def _stream(judge: Judge, mine: range, chunk_size: int, *, rows: bool) -> Generator[Arrival, None, None]:
    """The episodes of `mine`, a few chunks at a time, sampled ahead by a background thread."""
    at_once = chunk_size * max(1, _sampled_together(judge) // chunk_size)
    starts = mine[::at_once]

    def sample(place: int) -> MetaBatch:
        indices = range(judge.first + starts[place], judge.first + min(starts[place] + at_once, mine.stop))
        return sample_meta_batch(judge.source, judge.spec, judge.split, judge.seed, indices, rows=rows)

    return threaded_stream(sample, start=0, stop=len(starts))


def _sampled_together(judge: Judge) -> int:
    """Episodes that cost less to sample together, and of which memory hardly notices how many there are."""
    shape = judge.source.feature_shape
    if not judge.spec.is_fixed or None in shape or type(judge.source).sample_tasks is Source.sample_tasks:
        return 1
    examples = judge.spec.most_ways * judge.spec.largest.least_examples
    return min(TOGETHER, TOGETHER_NUMBERS // (examples * prod(shape)))
