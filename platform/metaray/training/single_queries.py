"""What a learner loses when its queries come one at a time."""

from typing import NamedTuple

import torch
from torch import Tensor

from metaray.episodes.inputs import take
from metaray.episodes.sampler import sample_meta_batch
from metaray.episodes.tensors import chunks
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.learners.learner import Learner
from metaray.records.estimate import Estimate, estimate, paired_difference
from metaray.training.device import execution
from metaray.training.evaluation import judge_of, judging_context

CPU = torch.device("cpu")
MOST_EPISODES = 100
MOST_QUERIES = 500
"""Asked one by one, in all: each may cost as much as a whole batch of them."""


class SingleQueries(NamedTuple):
    """The same queries of meta-val answered in whole batches, and each alone.

    Attributes:
        quality: What the scores are.
        together: Score of the answers in whole batches.
        alone: Score of the single answers; None if the learner refuses single queries.
        difference: Alone - together, by episode; None likewise.
        queries: Number of queries of each episode; of unequal ones the most.
    """

    quality: str
    together: Estimate
    alone: Estimate | None
    difference: Estimate | None
    queries: int

    def __str__(self) -> str:
        if self.alone is None or self.difference is None:
            return f"refused; meta-val {self.quality} {self.together.mean:.4f} together"
        return (
            f"meta-val {self.quality} {self.alone.mean:.4f} one by one, {self.together.mean:.4f} together: difference "
            f"{self.difference.mean:+.4f} +- {self.difference.half_width:.4f} "
            f"({self.together.episodes} episodes, {self.queries} queries of each)"
        )


def single_queries(learner: Learner, experiment: Experiment) -> SingleQueries:
    """Judge a learner on some queries of meta-val, together and one by one.

    Raises:
        InputError: If the learner does not fit the experiment.
    """
    with execution(experiment, CPU):
        together, alone, queries = _judged(learner, experiment)
    if not alone:
        return SingleQueries(experiment.quality, estimate(together), None, None, queries)
    difference = paired_difference(alone, together)
    return SingleQueries(experiment.quality, estimate(together), estimate(alone), difference, queries)


def _judged(learner: Learner, experiment: Experiment) -> tuple[list[float], list[float], int]:
    """Scores of episodes answered together and alone (none, where single queries are refused), and queries of each."""
    context, judge = judging_context(learner, experiment), judge_of(experiment, "meta-val")
    algorithm, meta = learner.algorithm, learner.meta
    episodes = min(judge.episodes, MOST_EPISODES)
    together: list[float] = []
    alone: list[float] = []
    most = 0
    for index in range(episodes):
        batch = sample_meta_batch(judge.source, judge.spec, judge.split, judge.seed, range(index, index + 1))
        ((episode,),) = chunks(batch, 1, CPU, judge.source, judge.split)
        x, y = episode.query
        context = context.of(episode)
        picked = _spread(len(y), max(1, MOST_QUERIES // episodes))
        with torch.no_grad():
            adapted = algorithm.adapt(meta, episode.support, context)
            whole = algorithm.predict(meta, adapted, x, context)
            if context.score(whole[picked], y[picked]).isnan():  # few queries of one class have no such score
                picked = _with_all_classes(picked, y)
            most = max(most, len(picked))
            together.append(float(context.score(whole[picked], y[picked])))
            try:
                answers = [algorithm.predict(meta, adapted, take(x, slice(i, i + 1)), context) for i in picked.tolist()]
            except InputError:  # batch norm over one value a channel
                continue
            alone.append(float(context.score(torch.cat(answers), y[picked])))
    return together, alone, most


def _spread(count: int, most: int) -> Tensor:
    """Places 0 .. count-1, at most so many, evenly: queries lie class by class."""
    some = min(count, most)
    return torch.arange(some) * count // some


def _with_all_classes(picked: Tensor, y: Tensor) -> Tensor:
    """The picked places, and the first one of each class that is not among them."""
    if y.is_floating_point():
        return picked
    missing = set(y.tolist()) - set(y[picked].tolist())
    more = [int((y == label).nonzero()[0, 0]) for label in sorted(missing)]
    return torch.cat([picked, torch.tensor(more, dtype=picked.dtype)])
