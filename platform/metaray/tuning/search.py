"""The search: the frozen, validated, complete description of a hyperparameter search."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_serializer, field_validator, model_validator

from metaray.algorithms.families.inner_lr import Schedule
from metaray.config import Config, refuse_subclass, replace
from metaray.data.task import same_examples
from metaray.episodes.sampler import sample_episode
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.experiment.overrides import changed
from metaray.experiment.packages import IMPORT_PATH, packages_in, packages_of
from metaray.tuning.candidates import combinations, count, draw
from metaray.tuning.space import Domain, parse_domain
from metaray.tuning.trial import Objective
from metaray.uris import has_secret

Searcher = Literal["random", "grid", "tpe", "pbt"]
Scheduler = Literal["asha", "median", "none"]

INNER_LR = "algorithm.inner_lr"
FIXED = {
    "name": "it names the MLflow experiment and the registered model",
    "evaluation.seed": "all trials are judged on the same episodes",
    "evaluation.val_episodes": "all trials are judged on the same episodes",
    "evaluation.test_episodes": "nothing is chosen on meta-test",
    "evaluation.episodes": "all trials are judged on the same episodes",
}
"""Fields that a search must not touch, and why."""


class Search(Config):
    """The complete description of a hyperparameter search.

    It is frozen and validated, and converts to JSON and back without loss.

    Attributes:
        experiment: The experiment that each trial trains, with the searched fields changed.
        space: Domain of each searched field, by its dotted key.
        searcher: How values are chosen: "random", each a function of (seed, number); "grid"; "tpe", Optuna's
            tree-structured Parzen estimator (Bergstra et al., NIPS 2011); or "pbt", population-based training
            (Jaderberg et al., 2017, arXiv:1711.09846), which changes the inner learning rate during training. None
            trains the same experiment twice: values that were tried before are drawn anew.
        scheduler: How bad trials are stopped early: "asha" (Li et al., MLSys 2020), "median" (Golovin et al., KDD 2017)
            or "none".
        trials: Number of trials; with "pbt" the size of the population; None with "grid" takes all points of the grid.
        objective: Objective on meta-val: "quality" (the score of the task kind) or "loss".
        episodes: Number of meta-train episodes of a complete trial; None takes that of `experiment`. Early stopping
            compares trials at equal numbers of episodes, which is fair to all meta-batch sizes.
        grace: Number of episodes before a trial may be stopped early; None takes a ninth of `episodes`.
        reduction_factor: Reduction factor eta of ASHA: one trial in eta continues at each rung.
        generations: Number of generations of "pbt".
        seed: Seed of the values that the searcher draws.
    """

    experiment: Experiment
    space: dict[str, Any]
    searcher: Searcher = "random"
    scheduler: Scheduler = "asha"
    trials: int | None = Field(default=None, ge=1, le=100_000)
    objective: Literal["quality", "loss"] = "quality"
    episodes: int | None = Field(default=None, ge=1)
    grace: int | None = Field(default=None, ge=1)
    reduction_factor: float = Field(default=3.0, gt=1)
    generations: int = Field(default=10, ge=2)
    seed: int = Field(default=0, ge=0, lt=2**63)

    @field_validator("space", mode="before")
    @classmethod
    def _parse_space(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or not value:
            raise ValueError(f"name at least one field to search, as in {INNER_LR}=loguniform(1e-3,1) (got {value!r})")
        for key, one in value.items():
            if has_secret(one.expression() if isinstance(one, Domain) else str(one)):
                raise ValueError(f"space: {key} holds a credential, which the record of the search would tell")
        return {key: one if isinstance(one, Domain) else parse_domain(str(one)) for key, one in value.items()}

    @field_serializer("space")
    def _dump_space(self, value: dict[str, Domain]) -> dict[str, str]:
        return {key: domain.expression() for key, domain in value.items()}

    @model_validator(mode="after")
    def _is_no_subclass(self) -> "Search":
        refuse_subclass(self, Search)
        return self

    @model_validator(mode="after")
    def _trials_start_afresh(self) -> "Search":
        if self.experiment.initial is not None:
            raise ValueError(f"experiment: trials start afresh, not from run {self.experiment.initial.run!r} (initial)")
        return self

    @model_validator(mode="after")
    def _fields_may_be_searched(self) -> "Search":
        for key in self.space:
            for fixed, why in FIXED.items():
                if f"{key}.".startswith(f"{fixed}.") or fixed.startswith(f"{key}."):
                    what = f" ({fixed})" if fixed.startswith(f"{key}.") else ""
                    raise ValueError(f"space: {key}{what} cannot be searched: {why}")
        return self

    @model_validator(mode="after")
    def _searcher_has_what_it_needs(self) -> "Search":
        if self.searcher == "grid":
            combinations(self.space, self.trials)
        elif self.trials is None:
            raise ValueError(f"trials: say how many trials a {self.searcher} search has")
        if self.searcher == "pbt":
            if list(self.space) != [INNER_LR]:
                raise ValueError(
                    f"space: pbt changes {INNER_LR} during training, and nothing else (got {', '.join(self.space)})"
                )
            if self.scheduler != "none":
                raise ValueError(f"scheduler: pbt replaces its worst trials itself: use none (got {self.scheduler!r})")
            if self.population < 2:
                few = "" if self.trials == 1 else f", as {self.space[INNER_LR].expression()} has no more"
                raise ValueError(f"trials: a population needs at least 2 members (got {self.population}{few})")
        elif self.scheduler != "none" and self.grace_episodes > self.budget:
            raise ValueError(f"grace: {self.grace} episodes are more than a whole trial sees ({self.budget})")
        return self

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages besides metaray whose code the trials name."""
        ends = [end for domain in self.space.values() for end in domain.ends()]
        named = [end for end in ends if isinstance(end, str) and IMPORT_PATH.fullmatch(end)]
        return packages_in([*packages_of(self.experiment), *named])

    @property
    def population(self) -> int:
        """Largest number of trials that are proposed before any result is known: at most the points of the space."""
        if self.searcher == "grid":
            return len(combinations(self.space, self.trials))
        assert self.trials is not None
        return min(self.trials, count(self.space) or self.trials)

    @property
    def budget(self) -> int:
        """Number of meta-train episodes of a complete trial."""
        return self.episodes or max(1, self.experiment.num_steps * self.experiment.meta_batch_size)

    @property
    def grace_episodes(self) -> int:
        """Number of episodes before a trial may be stopped early."""
        return self.grace or max(1, self.budget // 9)

    @property
    def optimises(self) -> Objective:
        """The objective, and whether higher values are better."""
        if self.objective == "loss":
            return Objective("loss", highest=False)
        score = self.experiment.source.task.score
        return Objective(score.name, highest=score.higher_is_better)

    @property
    def logs(self) -> dict[str, bool]:
        """Whether each searched field has a logarithmic scale, by its dotted key."""
        return {key: domain.is_log for key, domain in self.space.items()}

    def experiment_of(self, settings: Mapping[str, Any]) -> Experiment:
        """The experiment of the trial with these values of the searched fields.

        It trains on `budget` episodes, whatever its meta-batch size. It is evaluated often enough for the scheduler, on
        the evaluation episodes of the base experiment.

        Raises:
            InputError: If the values do not make a valid experiment.
        """
        base = self.experiment
        # Parts of an inner learning rate last: how many there may be depends on other fields.
        found = changed(base, sorted(settings.items(), key=lambda item: ".inner_lr." in item[0]))
        size = found.meta_batch_size
        if "num_steps" not in settings and (self.episodes is not None or size != base.meta_batch_size):
            found = replace(found, num_steps=max(1, round(self.budget / size)))
        plan = found.evaluation
        if "evaluation.every" not in settings:
            plan = replace(plan, every=self._judged_each(size))
        if any(f"{key}.".startswith("episodes.") for key in settings):
            plan = replace(plan, episodes=base.eval_spec)
        return found if plan == found.evaluation else replace(found, evaluation=plan)

    @property
    def generation_steps(self) -> int:
        """Number of outer steps of a generation of "pbt"."""
        base = self.experiment
        steps = base.num_steps if self.episodes is None else max(1, round(self.budget / base.meta_batch_size))
        return max(1, math.ceil(steps / self.generations))

    def _judged_each(self, size: int) -> int:
        """Outer steps between evaluations: the base's, or fewer, so that they fall on what is decided by them.

        Args:
            size: Episodes of a step.
        """
        every = self.experiment.evaluation.every * self.experiment.meta_batch_size or self.budget
        if self.searcher == "pbt":
            # Each generation ends with one.
            parts = math.ceil(self.generation_steps * size / every)
            return self.generation_steps // parts if self.generation_steps % parts == 0 else self.generation_steps
        if self.scheduler != "none":
            every = math.ceil(self.grace_episodes / math.ceil(self.grace_episodes / every))
        return math.ceil(every / size)

    def initial(self, number: int, attempt: int = 0) -> dict[str, Any]:
        """The settings of trial `number` of a random or grid search, or of the first generation of a population.

        Args:
            number: Number of the trial.
            attempt: Number of the attempt; each one draws other values, except in a grid.
        """
        if self.searcher == "grid":
            return self.grid()[number]
        return self.as_begun(draw(self.space, self.seed, number, attempt))

    def grid(self) -> list[dict[str, Any]]:
        """The settings of a grid search, in the order of the trials."""
        points = combinations(self.space, self.trials)
        if self.scheduler == "none":
            return points
        # In a random order: in ascending order each might be better than all before, and none be stopped.
        return [points[int(place)] for place in np.random.default_rng(self.seed).permutation(len(points))]

    def as_begun(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Settings as a trial starts with them; with "pbt" the rate is a schedule, to which later copies add."""
        if self.searcher != "pbt":
            return settings
        return {INNER_LR: Schedule(steps=(0,), values=(settings[INNER_LR],)).model_dump(mode="json")}

    def check(self) -> None:
        """Check, one field at a time, that the ends of each domain make valid experiments.

        Raises:
            InputError: If one does not; the message names the field and the value.
        """
        for _ in self.at_ends():
            pass

    def at_ends(self) -> Iterator[Experiment]:
        """The experiments at the ends of each domain, one field at a time.

        Raises:
            InputError: If one is no valid experiment; the message names the field and the value.
        """
        first = {key: domain.ends()[0] for key, domain in self.space.items()}
        for key, domain in self.space.items():
            for value in domain.ends():
                settings = first | {key: value}
                if self.searcher == "pbt":
                    settings = {key: {"steps": [0], "values": [value]}}
                try:
                    experiment = self.experiment_of(settings)
                    self._check_judge(experiment)
                except InputError as error:
                    listed = ", ".join(f"{name}={found!r}" for name, found in settings.items())
                    raise InputError(f"--search {key}={domain.expression()}: with {listed}: {error}") from None
                yield experiment

    def _check_judge(self, experiment: Experiment) -> None:
        """Check that another source has the same episodes in meta-val."""
        base = self.experiment
        if experiment.source == base.source:
            return
        one, other = (
            [sample_episode(source, base.eval_spec, "meta-val", base.evaluation.seed, index).task for index in range(2)]
            for source in (base.source, experiment.source)
        )
        if not all(same_examples(*pair) for pair in zip(one, other, strict=True)):
            raise InputError("it changes the episodes of meta-val, on which all trials are judged")
