"""When a run computes something else than in the step before, as far as it is known beforehand."""

from metaray.algorithms.families.inner_lr import Schedule
from metaray.experiment.experiment import Experiment


def kinds_of_steps(experiment: Experiment, first: int, *, rates: bool = False) -> list[int]:
    """Outer steps of which each kind of step that a run takes is one: the first, the last, and where that changes.

    Args:
        experiment: Experiment of the run.
        first: The step from which it goes on.
        rates: Whether other inner learning rates make another kind.
    """
    algorithm, last = experiment.algorithm, max(first, experiment.num_steps - 1)
    turns = set(algorithm.turns)
    if rates:
        fields = [getattr(algorithm, name) for name in type(algorithm).model_fields]
        turns |= {step for value in fields if isinstance(value, Schedule) for step in value.steps}
    return sorted({first, last, *(step for step in turns if first < step < last)})
