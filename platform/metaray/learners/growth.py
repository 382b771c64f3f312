"""Adapted tasks that grow: what a task keeps of its support set, and what it becomes with further examples.

`together` gives what adapting to all examples at once gives: from the algorithm's summary of the earlier ones, where
there is such and they don't influence one another in the network, else from the examples themselves, where the task
holds them. `continue` goes on from what the task has learned and looks at the further examples alone.
"""

from typing import Literal, NamedTuple

import torch

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.head import waiting_support
from metaray.algorithms.growth import fixed_statistics
from metaray.episodes.inputs import NOT_TAKEN, concatenate, flattened, unflattened
from metaray.episodes.tensors import Examples
from metaray.errors import InputError, unknown

CENTRE = "task:centre"
"""Name of the tensor that holds the offset added to predictions; see `TaskKind.centre`."""
SUMMARY, INPUTS, TARGETS = "summary:", "support:x", "support:y"

How = Literal["together", "continue"]
WAYS_TO_GROW: tuple[How, ...] = ("together", "continue")


class Kept(NamedTuple):
    """What a task keeps of its support set, so that it can be extended.

    Attributes:
        support: The examples as the network takes them, with targets as `TaskKind.read` returns them; None if they are
            not kept.
        summary: Summary of the examples, as `Algorithm.summary` returns it; None if it does not exist or was not
            computed yet.
    """

    support: Examples | None = None
    summary: Tensors | None = None

    def tensors(self, *, support: bool) -> Tensors:
        """A flat dict of what is kept, with the examples or without."""
        found = {SUMMARY + name: value for name, value in (self.summary or {}).items()}
        if support and self.support is not None:
            found |= {**flattened(self.support.x, INPUTS), TARGETS: self.support.y}
        return found

    @classmethod
    def of(cls, tensors: Tensors) -> "Kept":
        """Read tensors by name: the inverse of `tensors`."""
        summary = {name.removeprefix(SUMMARY): value for name, value in tensors.items() if name.startswith(SUMMARY)}
        if TARGETS not in tensors:
            return cls(None, summary or None)
        return cls(Examples(unflattened(tensors, INPUTS), tensors[TARGETS]), summary or None)


class Learned(NamedTuple):
    """An adapted task without its labels.

    Attributes:
        adapted: What the algorithm's `adapt` returned, and the offset of the targets if the task kind has one.
        kept: What the task keeps of its support set.
    """

    adapted: Tensors
    kept: Kept


def learned(algorithm: Algorithm, meta: Tensors, support: Examples, context: Context) -> Learned:
    """Adapt to a support set."""
    centre = context.task.centre(support.y.numpy())
    shift = None if centre is None else torch.from_numpy(centre)
    adapted = algorithm.adapt(meta, _centred(support, shift), context)
    return Learned(_with_centre(adapted, shift), Kept(support))


def grown(algorithm: Algorithm, meta: Tensors, task: Learned, further: Examples, context: Context, how: How) -> Learned:
    """Extend a task by further examples; the task and the examples are not modified.

    Args:
        algorithm: Algorithm that learned the task.
        meta: The algorithm's meta-parameters.
        task: The task so far.
        further: Further examples as the network takes them, with targets as `TaskKind.read_more` returns them.
        context: Context of the extended task.
        how: "together" or "continue".

    Raises:
        InputError: If `how` is another word, the task does not keep what is needed, or the algorithm does not support
            it.
    """
    if how not in WAYS_TO_GROW:
        raise unknown("way to extend a task", str(how), WAYS_TO_GROW)
    try:
        return (_together if how == "together" else _continued)(algorithm, meta, task, further, context)
    except InputError:
        raise
    except NOT_TAKEN as error:
        raise InputError(f"what the task holds does not fit its {algorithm.kind} learner: {error}") from error


def with_summary(algorithm: Algorithm, meta: Tensors, task: Learned, context: Context) -> Kept:
    """What the task keeps, including the algorithm's summary if there is one."""
    own, shift = _own(task.adapted)
    return task.kept._replace(summary=_summary(algorithm, meta, task.kept, shift, context, fixed_statistics(own)))


def _together(algorithm: Algorithm, meta: Tensors, task: Learned, further: Examples, context: Context) -> Learned:
    own, shift = _own(task.adapted)
    kept = task.kept if task.kept.support is not None else task.kept._replace(support=_waiting(own, shift))
    if shift is None and not fixed_statistics(own):
        summary = _of_both(algorithm, meta, kept, further, None, context, {})
        if summary is not None:
            return Learned(algorithm.adapt_to(meta, summary, context), Kept(None, summary))
    if kept.support is None:
        goes_on = algorithm.gradient_steps or kept.summary is not None
        raise InputError(_lacks(algorithm, normalised=bool(fixed_statistics(own)), goes_on=goes_on))
    return learned(algorithm, meta, _both(kept.support, further), context)


def _continued(algorithm: Algorithm, meta: Tensors, task: Learned, further: Examples, context: Context) -> Learned:
    own, shift = _own(task.adapted)
    support = None if task.kept.support is None else _both(task.kept.support, further)
    if algorithm.gradient_steps:
        adapted = algorithm.go_on(meta, own, _centred(further, shift), context)
        return Learned(_with_centre(adapted, shift), Kept(support))
    summary = _of_both(algorithm, meta, task.kept, further, shift, context, fixed_statistics(own))
    if summary is None and support is None:
        raise InputError(
            "this task holds neither its examples nor what sums them up, as one that an older version saved: adapt "
            "anew to all examples"
        )
    if summary is None:
        raise InputError(
            f"this task of a {algorithm.kind} learner holds nothing to go on from but its examples: extend it "
            "with how='together'"
        )
    return Learned(_with_centre(algorithm.adapt_to(meta, summary, context), shift), Kept(support, summary))


def _of_both(
    algorithm: Algorithm,
    meta: Tensors,
    kept: Kept,
    further: Examples,
    shift: torch.Tensor | None,
    context: Context,
    statistics: Tensors,
) -> Tensors | None:
    """The summary of the earlier and the further examples; None if there is none of either."""
    before = _summary(algorithm, meta, kept, shift, context, statistics)
    if before is None:
        return None
    more = algorithm.summary(meta, _centred(further, shift), context, statistics)
    return None if more is None else algorithm.joined(before, more)


def _summary(
    algorithm: Algorithm,
    meta: Tensors,
    kept: Kept,
    shift: torch.Tensor | None,
    context: Context,
    statistics: Tensors,
) -> Tensors | None:
    if kept.summary is not None or kept.support is None:
        return kept.summary
    return algorithm.summary(meta, _centred(kept.support, shift), context, statistics)


def _own(adapted: Tensors) -> tuple[Tensors, torch.Tensor | None]:
    """What the algorithm learned, and the centre."""
    return {name: value for name, value in adapted.items() if name != CENTRE}, adapted.get(CENTRE)


def _with_centre(adapted: Tensors, shift: torch.Tensor | None) -> Tensors:
    return adapted if shift is None else {**adapted, CENTRE: shift}


def _centred(examples: Examples, shift: torch.Tensor | None) -> Examples:
    return examples if shift is None else Examples(examples.x, examples.y - shift)


def _waiting(adapted: Tensors, shift: torch.Tensor | None) -> Examples | None:
    """The support, where what was learned holds it."""
    found = waiting_support(adapted)
    return found if found is None or shift is None else Examples(found.x, found.y + shift)


def _both(support: Examples, further: Examples) -> Examples:
    return Examples(concatenate([support.x, further.x]), torch.cat([support.y, further.y]))


def _lacks(algorithm: Algorithm, *, normalised: bool, goes_on: bool) -> str:
    why = "whose batch norm takes its statistics from all of them" if normalised else "which learns from all of them"
    return (
        f"this task holds no examples, and a {algorithm.kind} learner {why} can't extend it without: save tasks with "
        "their examples (task.save(path, support=True), or metaray adapt --keep-support)"
        + (", or extend it with how='continue', which goes on from what it has learned" if goes_on else "")
    )
