"""What scores by episode amount to, for runs and for learners that are judged: further scores, groups, baselines."""

from collections.abc import Mapping

from metaray.data.draws import Split
from metaray.data.source import Source
from metaray.records.estimate import Estimate, estimate
from metaray.records.judged import Judged
from metaray.records.over_groups import GroupEstimate, over_groups
from metaray.records.result import Rival
from metaray.tasks import TaskKind
from metaray.training.evaluation import Scores


def further_of(task: TaskKind, scores: Scores) -> dict[str, Estimate]:
    """The scores that stand beside the one that decides, by name."""
    return {one.name: estimate(values) for one, values in zip(task.further, scores.further, strict=True)}


def groups_of(source: Source, scores: Scores) -> tuple[str, ...]:
    """The name of the group of each episode; none where tasks are of none."""
    names = {number: source.group_name(number) for number in set(scores.group.astype(int).tolist())}
    found = tuple(names[number] or "" for number in scores.group.astype(int).tolist())
    return () if None in names.values() else found


def over_groups_of(source: Source, scores: Scores) -> dict[str, GroupEstimate]:
    """Each score over groups, by name; none where tasks are of none."""
    groups = groups_of(source, scores)
    if not groups:
        return {}
    named = {source.task.score.name: scores.score}
    named |= {one.name: values for one, values in zip(source.task.further, scores.further, strict=True)}
    return {name: over_groups(values, groups) for name, values in named.items()}


def rival_of(source: Source, learner: Scores, scores: Scores, meta_val: Scores | None = None) -> Rival:
    """A baseline beside a learner.

    Args:
        source: Source of the tasks.
        learner: Scores of the learner.
        scores: Those of the baseline, on the same episodes.
        meta_val: Those of the baseline on meta-val, where they are kept.
    """
    gain = [source.task.score.gain(one) for one in (learner.score - scores.score).tolist()]
    groups = groups_of(source, scores)
    return Rival(
        score=scores.estimate,
        gain=estimate(gain),
        gain_over_groups=over_groups(gain, groups) if groups else None,
        further=further_of(source.task, scores),
        val_scores=() if meta_val is None else tuple(meta_val.score.tolist()),
    )


def judged_of(
    source: Source, split: Split, learner: Scores, beside: Mapping[str, Scores], baselines: tuple[str, ...]
) -> Judged:
    """The table by episode.

    Args:
        source: Source of the tasks.
        split: Split of the episodes.
        learner: Scores of the learner.
        beside: Those of whatever else was judged on the same episodes, by name.
        baselines: Names of those that are baselines.
    """
    columns: dict[str, tuple[float, ...]] = {}
    for suffix, scores in {"": learner, **{f"_{name}": scores for name, scores in beside.items()}}.items():
        columns[f"{source.task.score.name}{suffix}"] = tuple(scores.score.tolist())
        for one, values in zip(source.task.further, scores.further, strict=True):
            columns[f"{one.name}{suffix}"] = tuple(values.tolist())
    return Judged(
        split=split,
        quality=source.task.score.name,
        baselines=baselines,
        support=tuple(learner.support.astype(int).tolist()),
        query=tuple(learner.query.astype(int).tolist()),
        group=groups_of(source, learner),
        scores=columns,
    )
