"""What a search does next: a policy over its ledger, which knows nothing of who carries it out."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Literal, NamedTuple, final

from metaray.algorithms.families.inner_lr import Schedule
from metaray.errors import InputError
from metaray.tuning.ledger import Ledger, Origin
from metaray.tuning.population import Copy, next_generation
from metaray.tuning.search import INNER_LR
from metaray.tuning.trial import trial_name
from metaray.tuning.untried import Untried


class Work(NamedTuple):
    """Work for one trial: train it from its current state.

    Attributes:
        number: Number of the trial.
        until: Number of outer steps after which the trial pauses; None trains to the end.
    """

    number: int
    until: int | None = None


Next = Work | Literal["wait", "done"]


class Proposer(ABC):
    """Proposes which trial to train next. All its memory is in the ledger.

    Args:
        ledger: Ledger of the search.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.search = ledger.search
        self._untried = Untried(ledger)

    @abstractmethod
    def next(self, running: Collection[int]) -> Next:
        """The next work besides the `running` trials; "wait" until one of them ends; or "done"."""

    def _first_population(self) -> Work | None:
        """The next trial that is not proposed yet, proposed. Those with wrong values have failed, and are passed by."""
        count = len(self.ledger.numbers())
        while count < self.search.population and (settings := self._untried.settings(count)) is not None:
            try:
                return Work(self.ledger.propose(count, settings).number)
            except InputError:
                count += 1
        return None

    def _open(self, running: Collection[int]) -> list[int]:
        """Trials that have not ended and are not running."""
        trials = [self.ledger.trial(number) for number in self.ledger.numbers()]
        return [trial.number for trial in trials if trial.status == "waiting" and trial.number not in running]


@final
class OneByOne(Proposer):
    """Proposer of random, grid and TPE searches, whose trials each train to the end."""

    def next(self, running: Collection[int]) -> Next:
        """Unfinished trials of an interrupted search first, then new ones."""
        left = self._open(running)
        if left:
            return Work(left[0])
        return self._first_population() or "done"


@final
class Population(Proposer):
    """Population-based training: all members train to the end of a generation, then some are replaced."""

    def next(self, running: Collection[int]) -> Next:
        """A member that has not reached the end of the generation."""
        first = self._first_population()
        if first is not None:
            return first._replace(until=self._boundary(0))
        generation, replaced = self._applied()
        boundary = self._boundary(generation)
        members = [number for number in self.ledger.numbers() if number not in replaced]
        alive = [number for number in members if self.ledger.trial(number).status == "waiting"]
        behind = [number for number in alive if boundary is None or self.ledger.step_of(number) < boundary]
        if behind:
            idle = [number for number in behind if number not in running]
            return Work(idle[0], boundary) if idle else "wait"
        if running:
            return "wait"
        if not alive or boundary is None:
            return "done"
        self._decide(generation, members, boundary)
        return self.next(running)

    def _boundary(self, generation: int) -> int | None:
        """The step at which a generation ends; None for the last, which trains to the end."""
        step = (generation + 1) * self.search.generation_steps
        return step if step < self.search.experiment_of({}).num_steps else None

    def _applied(self) -> tuple[int, set[int]]:
        """Carry out what was decided, as far as that is left to do; the present generation, and who was replaced."""
        generation, replaced = 0, set()
        there = set(self.ledger.numbers())
        while (copies := self.ledger.copies(generation)) is not None:
            for number, copy in copies:
                if number not in there:
                    self._copy(number, copy, generation)
                why = f"replaced by a copy of {trial_name(copy.of)} after generation {generation + 1}"
                self.ledger.end(copy.replaces, "stopped early", why)
                replaced.add(copy.replaces)
            generation += 1
        return generation, replaced

    def _copy(self, number: int, copy: Copy, generation: int) -> None:
        step = self._boundary(generation)
        assert step is not None
        before = Schedule.model_validate(self.ledger.entry(copy.of).settings[INNER_LR])
        value = before.values[-1] * copy.factor
        schedule = Schedule(steps=(*before.steps, step), values=(*before.values, value))
        self.ledger.propose(number, {INNER_LR: schedule.model_dump(mode="json")}, Origin(copy.of, step))

    def _decide(self, generation: int, members: list[int], boundary: int) -> None:
        scores = {}
        for number in members:
            trial = self.ledger.trial(number)
            curve = {judged.step: judged.value for judged in trial.curve}
            # One that failed after it was judged has no checkpoint to be copied.
            scores[number] = float("nan") if trial.status == "failed" else curve.get(boundary, float("nan"))
        copies = next_generation(scores, self.search.optimises, self.search.seed, generation)
        free = len(self.ledger.numbers())
        self.ledger.decide(generation, [(free + i, copy) for i, copy in enumerate(copies)])


def proposer_of(ledger: Ledger) -> Proposer:
    """The proposer for the ledger's search."""
    return Population(ledger) if ledger.search.searcher == "pbt" else OneByOne(ledger)
