"""What Tune runs for a trial: its experiment, from the newest checkpoint, over the same loop as `metaray train`."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from ray import tune

from metaray.distributed.samplers import enter, require_same_data
from metaray.distributed.trial_schedulers import AGAIN, EPISODES, VALUE
from metaray.errors import InputError, RunFailed, RunStopped
from metaray.experiment.experiment import Experiment
from metaray.records.checkpoint_files import newest_progress
from metaray.records.events import Event, Listener
from metaray.records.failure import as_failure, write_failure
from metaray.records.run import held
from metaray.records.storage import Storage
from metaray.retry import patience, retry
from metaray.tracebacks import whole
from metaray.training.in_process import InProcess
from metaray.training.place import Extent, Place
from metaray.training.placement import Placement
from metaray.tuning.ledger import curve_of, end_trial, read_entry
from metaray.tuning.trial import Objective, trial_name

NUMBER, UNTIL = "number", "until"
"""Keys of a Tune trial's configuration: the trial's number, and where it pauses."""

DIES_WITHIN_S = 60.0


@dataclass(frozen=True)
class Setup:
    """What all trials of a search have in common.

    Attributes:
        folder: The driver's working directory.
        trust: Packages besides metaray whose code trials may name.
        storage: Folder or URI of the search.
        objective: Objective of the search.
        placement: Placement of each trial.
        again: Whether Tune's scheduler is to hear again of evaluations before a kill.
    """

    folder: str
    trust: tuple[str, ...]
    storage: str
    objective: Objective
    placement: Placement
    again: bool


def train_trial(config: dict[str, Any], setup: Setup) -> None:
    """Train a trial up to its end or to where it pauses, and report each evaluation.

    What fails here would fail again: it is written down, and the search goes on without the trial. If the process
    dies, Tune starts another, which goes on from the newest checkpoint.
    """
    enter(setup.folder)
    number, until = config[NUMBER], config[UNTIL]
    run = Storage(setup.storage).child(trial_name(number))
    try:
        entry = read_entry(run, number, setup.trust)
        experiment = entry.experiment
        require_same_data(experiment.source, entry.fingerprint, verify=setup.placement.verify)
        reporter = Reporter(experiment, setup.objective)
        with soon_held(run):
            if setup.again:
                _report_again(reporter, run, experiment)
            _place(setup.placement).train(experiment, run, reporter, Extent(until, judge=False))
    except RunStopped:
        pass  # as planned
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this trial's fault alone
        failure = as_failure(error)
        known = failure if isinstance(failure, RunFailed) else RunFailed(str(failure), tracebacks=whole(error))
        write_failure(run, known)
        end_trial(run, "failed", str(known))


@contextmanager
def soon_held(run: Storage) -> Iterator[None]:
    """Keep a trial's folder to this process; the one of a killed search that had it may take a moment to die."""
    with ExitStack() as stack:
        retry(lambda: stack.enter_context(held(run)), on=InputError, waits=patience(DIES_WITHIN_S))
        yield


def _place(placement: Placement) -> Place:
    if placement.in_process:
        return InProcess(placement.device)
    from metaray.distributed.trainer import OnRay  # Ray Train takes a while to import, and most trials need none

    return OnRay(placement)


class Reporter(Listener):
    """Reports evaluations to Tune, once what belongs to them is on disk: Tune may end the process as it reports.

    Args:
        experiment: Experiment of the trial.
        objective: Objective of the search.
    """

    def __init__(self, experiment: Experiment, objective: Objective) -> None:
        self.objective = objective
        self._size, self._key = experiment.meta_batch_size, f"val/{objective.name}"
        self._waiting: tuple[int, float] | None = None

    def on_event(self, event: Event) -> None:
        """Remember an evaluation; report it with the next event, which comes when its checkpoint has been written."""
        if event.kind == "evaluation":
            self._waiting = event.step, event.values[self._key]
        elif event.kind in ("checkpoint", "step", "phase"):
            self.close()

    def close(self) -> None:
        """Report what waits."""
        if self._waiting is not None:
            (step, value), self._waiting = self._waiting, None
            self.report(step, value)

    def report(self, step: int, value: float, *, again: bool = False) -> None:
        """Tell Tune; `again` if it has decided on it before."""
        tune.report({EPISODES: step * self._size, VALUE: value, AGAIN: again})


def _report_again(reporter: Reporter, run: Storage, experiment: Experiment) -> None:
    """Tell Tune, which may be new, of all evaluations up to the checkpoint. On the last it may not have decided."""
    step = newest_progress(run).step
    curve = [judged for judged in curve_of(run, experiment, reporter.objective) if judged.step <= step]
    for judged in curve:
        reporter.report(judged.step, judged.value, again=judged is not curve[-1])
