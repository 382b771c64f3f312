"""Tree-structured Parzen estimators, by Optuna."""

import math
import warnings
from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np

from metaray.tuning.search import Search
from metaray.tuning.space import Choice, Domain, LogRandInt, LogUniform, RandInt, Uniform, choice
from metaray.tuning.trial import Objective, Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

RANDOM_AT_MOST = 10


def propose(search: Search, number: int, trials: Sequence[Trial], attempt: int = 0) -> dict[str, Any]:
    """Propose the settings of trial `number`, a function of the search and of the current state of earlier trials.

    Another `attempt` draws other values.

    The first third of the trials, at most 10, are drawn at random. Failed trials count as worse than all others; trials
    that were stopped early rank by the episodes they reached; running ones count as bad, so that no two trials explore
    the same place ("constant liar").
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    objective = search.optimises
    # Seeded by the number, too: so the next one of a search that goes on is not drawn like the first.
    drawn_from = [search.seed, number, attempt] if attempt else [search.seed, number]
    seed = int(np.random.SeedSequence(drawn_from).generate_state(1)[0])
    count = min(RANDOM_AT_MOST, math.ceil(search.population / 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=count, multivariate=len(search.space) > 1, constant_liar=True
        )
    study = optuna.create_study(direction="maximize" if objective.highest else "minimize", sampler=sampler)
    for trial in trials:
        study.add_trial(_frozen(trial, search, objective))
    drawn = study.ask({key: _distribution(domain) for key, domain in search.space.items()}).params
    return {key: _value(domain, drawn[key]) for key, domain in search.space.items()}


def _distribution(domain: Domain) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(domain, Choice):
        return CategoricalDistribution(range(len(domain.values)))  # lists and dicts are no choices of Optuna's
    if isinstance(domain, RandInt | LogRandInt):
        return IntDistribution(domain.low, domain.high - 1, log=domain.is_log)
    assert isinstance(domain, Uniform | LogUniform)
    return FloatDistribution(domain.low, domain.high, log=domain.is_log)


def _value(domain: Domain, drawn: Any) -> Any:
    return deepcopy(domain.values[drawn]) if isinstance(domain, Choice) else drawn


def _drawn(domain: Domain, value: Any) -> Any:
    # By what they read as: 1 == True, but they are two choices.
    return [choice(one) for one in domain.values].index(choice(value)) if isinstance(domain, Choice) else value


def _frozen(trial: Trial, search: Search, objective: Objective) -> "FrozenTrial":
    """A trial as Optuna has it."""
    from optuna.trial import TrialState, create_trial

    best = trial.best(objective)
    steps = {judged.episodes: judged.value for judged in trial.curve if math.isfinite(judged.value)}
    if trial.status == "finished" and best is not None:
        state = TrialState.COMPLETE
    elif trial.status in ("waiting", "running"):
        state = TrialState.RUNNING
    else:
        state = TrialState.PRUNED
    return create_trial(
        state=state,
        value=best.value if state == TrialState.COMPLETE and best is not None else None,
        params={key: _drawn(domain, trial.settings[key]) for key, domain in search.space.items()},
        distributions={key: _distribution(domain) for key, domain in search.space.items()},
        intermediate_values=steps if trial.status == "stopped early" else {},
    )
