"""What a learner answers to the queries of episodes, one by one: what scores by episode do not tell."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from metaray.data.draws import Split
from metaray.data.task import Task
from metaray.episodes.episode import part
from metaray.episodes.sampler import sample_meta_batch
from metaray.episodes.tensors import chunks
from metaray.experiment.experiment import Experiment
from metaray.learners.learner import Learner
from metaray.reports.confusion import Labelled
from metaray.tasks import TaskKind
from metaray.training.device import execution
from metaray.training.evaluation import judge_of, judging_context


class Answer(NamedTuple):
    """One episode, and what was predicted of its queries.

    Attributes:
        task: The task as the source yields it, compact.
        score: Score of its queries, as the kind of the task has it.
        labelled: The predicted classes; None where targets are values.
        truth: [n, target_size] the right values in their own units (of centred tasks less the support's mean); None
            where targets are classes.
        values: [n, target_size] the predicted ones.
        spread: [n, target_size] the standard deviation that the learner itself gives each; None where it gives none.
    """

    task: Task
    score: float
    labelled: Labelled | None
    truth: NDArray[np.float32] | None = None
    values: NDArray[np.float32] | None = None
    spread: NDArray[np.float32] | None = None


def answers(
    learner: Learner,
    experiment: Experiment,
    split: Split,
    episodes: int,
    *,
    inner_steps: int | None = None,
    device: torch.device,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Answer]:
    """The answers to the first episodes of a split, those on which `metaray evaluate` judges, one by one.

    Args:
        learner: Learner that answers.
        experiment: Says on what it is judged, and how.
        split: "meta-val" or "meta-test".
        episodes: Number of episodes.
        inner_steps: Number of inner steps, instead of the learner's own.
        device: Device to compute on.
        progress: Told the number of episodes done so far.

    Raises:
        InputError: If the learner is fixed to other ways, or takes inputs or targets of another shape.
    """
    source, judge = experiment.source, judge_of(experiment, split)
    meta = {name: tensor.detach().to(device) for name, tensor in learner.meta.items()}
    with execution(experiment, device), torch.no_grad():
        context = judging_context(learner, experiment, inner_steps=inner_steps, device=device)
        for index in range(episodes):
            batch = sample_meta_batch(source, judge.spec, split, judge.seed, [index])
            task = part(batch.stacks[0], 0).task
            (((episode,),)) = chunks(batch, 1, device, source, split)
            here = context.of(episode)
            adapted = learner.algorithm.adapt(meta, episode.support, here)
            output = learner.algorithm.predict(meta, adapted, episode.query.x, here).float()
            spread = learner.algorithm.spread(meta, adapted, episode.query.x, here)
            score = float(source.task.judged(output, episode.query.y))
            yield _answer(source.task, task, score, output.cpu(), None if spread is None else spread.float().cpu())
            progress(index + 1)


def _answer(kind: TaskKind, task: Task, score: float, output: torch.Tensor, spread: torch.Tensor | None) -> Answer:
    if kind.has_classes:
        shares = kind.probabilities(output).astype(np.float64)
        told = shares.argmax(axis=1)
        # Where labels mean the same in all tasks, the one id is that of the whole task's group.
        classes = task.class_ids if kind.labels_vary else np.arange(shares.shape[1])
        # A network that diverged has no probabilities, and is sure of nothing.
        sure = np.nan_to_num(shares[np.arange(len(told)), told]).clip(0.0, 1.0)
        return Answer(task, score, Labelled(classes, task.query.y, told.astype(np.int64), sure))
    truth = kind.values(torch.from_numpy(np.array(task.query.y)), False)
    wide = None
    if spread is not None:
        # A difference of values, which their mean does not shift: from the network's units to the values' own.
        wide = kind.values(spread, False) - kind.values(torch.zeros_like(spread), False)
    return Answer(task, score, None, truth, kind.values(output, False), wide)
