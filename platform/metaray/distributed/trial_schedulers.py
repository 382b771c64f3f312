"""Ray Tune's schedulers, told of what happened before a search was killed."""

from collections.abc import Iterable
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from metaray.tuning.search import Search
from metaray.tuning.trial import Trial

EPISODES, VALUE, AGAIN = "episodes", "value", "again"
"""Keys of a report: the time axis, the objective, and whether it was decided on before the search was killed."""


class _Again:
    """Mixed into a scheduler: a trial that reports again what it reported before a kill was allowed to go on then."""

    def on_trial_result(self, controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """What the scheduler decides, or for old news that the trial goes on."""
        decision: str = super().on_trial_result(controller, trial, result)  # type: ignore[misc]
        return TrialScheduler.CONTINUE if result.get(AGAIN) else decision


class _Asha(_Again, ASHAScheduler):  # type: ignore[misc]
    pass


class _Median(_Again, MedianStoppingRule):  # type: ignore[misc]
    pass


class _Ended:
    """Stands for a trial that ended before the search was killed."""

    def __init__(self, number: int) -> None:
        self.trial_id = f"ended-{number}"


def scheduler_of(search: Search, ended: Iterable[Trial]) -> TrialScheduler:
    """The scheduler that a search asks for, which knows of the trials that have `ended`."""
    told = {"time_attr": EPISODES, "metric": VALUE, "mode": "max" if search.optimises.highest else "min"}
    if search.scheduler == "none":
        return FIFOScheduler()
    if search.scheduler == "asha":
        # Trials end by themselves: what they have to write then must not be cut off.
        scheduler = _Asha(
            **told,
            max_t=max(search.budget, search.grace_episodes) + 1,
            grace_period=search.grace_episodes,
            reduction_factor=search.reduction_factor,
            stop_last_trials=False,
        )
    else:
        # It would pause trials, to let others catch up, for which there is no need.
        scheduler = _Median(**told, grace_period=search.grace_episodes, min_time_slice=float("inf"))
    for trial in ended:
        _tell(scheduler, trial)
    return scheduler


def _tell(scheduler: TrialScheduler, trial: Trial) -> None:
    stub = _Ended(trial.number)
    scheduler.on_trial_add(None, stub)
    for judged in trial.curve:
        scheduler.on_trial_result(None, stub, {EPISODES: judged.episodes, VALUE: judged.value})
