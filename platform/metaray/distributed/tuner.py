"""A search carried out by Ray Tune, which starts, places, stops and restarts its trials."""

import functools
import logging
import os
import uuid
from collections.abc import Callable
from typing import Any

import ray
from ray import tune
from ray.tune.error import TuneError
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from metaray.distributed.cluster import ray_logs
from metaray.distributed.temporary_folders import scratch
from metaray.distributed.trainable import NUMBER, UNTIL, Setup, train_trial
from metaray.distributed.trial_schedulers import scheduler_of
from metaray.errors import RunFailed
from metaray.tuning.capacity import Shares
from metaray.tuning.ledger import Ledger, read_outcome
from metaray.tuning.listener import SearchListener
from metaray.tuning.proposers import Next, Proposer, Work, proposer_of
from metaray.tuning.trial import ENDED

RETRIES = 2
"""Times that Tune starts a trial again whose process has died."""
NEXT_TO_NOTHING = {"memory": 1 << 20}
"""What the driver of a multi-worker trial reserves: Tune refuses 0 CPUs, and 1 would be taken from the workers."""

QUICK_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the ledger has it all
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `metaray tune` has its own
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # nothing is restored from Tune's own state
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def search_on_ray(
    ledger: Ledger,
    setup: Setup,
    shares: Shares,
    at_once: int,
    listener: SearchListener,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train what the ledger's proposer proposes, until nothing is left to do.

    Args:
        ledger: Ledger of the search; how each trial ends is written there.
        setup: What trials have in common.
        shares: What each reserves.
        at_once: Trials.
        listener: Listener that hears of the trials.
        should_stop: Function that is polled; True ends the trials that run. They go on from their checkpoints in
            another call.

    Raises:
        RunFailed: If Tune itself fails.
    """
    os.environ.update(QUICK_TUNE)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it misses files that nobody needs
    reserve = NEXT_TO_NOTHING if shares.workers else {"CPU": shares.cpus, "GPU": shares.gpus}
    trials = ledger.trials()
    with scratch("metaray-tune-") as folder:
        tuner = tune.Tuner(
            tune.with_resources(functools.partial(train_trial, setup=setup), reserve),
            tune_config=tune.TuneConfig(
                search_alg=_Proposals(ledger, proposer_of(ledger), listener, should_stop),
                scheduler=scheduler_of(ledger.search, [trial for trial in trials if trial.status in ENDED]),
                num_samples=-1,  # the proposer says when it is enough
                max_concurrent_trials=at_once,
                # A process that has imported torch serves many trials. One with workers must end, to end them.
                reuse_actors=not shares.workers,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name=uuid.uuid4().hex,
                storage_path=folder,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                stop=_Stop(should_stop),
                callbacks=[_Silence()],
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except (TuneError, ray.exceptions.RayError) as error:
            told = f"Ray's own logs: {ray_logs()}"
            raise RunFailed(f"Ray Tune ended with {type(error).__name__}: {error}", told=told) from error


class _Unsaved:
    """Mixed into what Tune would pickle into its own state, from which nothing is ever restored."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Silence(TrialProgressCallback):  # type: ignore[misc]
    """A callback in place of one that prints, to standard output, whatever `verbose` says."""

    def _print(self, msg: str) -> None:
        pass


class _Stop(_Unsaved, Stopper):  # type: ignore[misc]
    """Ends the whole search when somebody asks for it."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._should_stop()


class _Proposals(_Unsaved, Searcher):  # type: ignore[misc]
    """Tune's way to the proposer, and back to the ledger."""

    def __init__(
        self, ledger: Ledger, proposer: Proposer, listener: SearchListener, should_stop: Callable[[], bool]
    ) -> None:
        super().__init__()
        self._ledger, self._proposer, self._listener = ledger, proposer, listener
        self._should_stop = should_stop
        self._running: dict[str, Work] = {}

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        work: Next = "wait" if self._should_stop() else self._proposer.next(self._numbers())
        if work == "wait":
            return None
        if work == "done":
            return str(Searcher.FINISHED)
        assert isinstance(work, Work)
        self._running[trial_id] = work
        self._tell(work.number)
        return {NUMBER: work.number, UNTIL: work.until}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._tell(self._running[trial_id].number)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        work = self._running.pop(trial_id)
        self._conclude(work, error)
        self._tell(work.number)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: all is in the ledger."""

    def _conclude(self, work: Work, error: bool) -> None:
        """Write down how it ended, if it has."""
        ledger, number = self._ledger, work.number
        step, experiment = ledger.step_of(number), ledger.entry(number).experiment
        if read_outcome(ledger.run_of(number)) is not None:
            return
        if error:
            ledger.end(number, "failed", f"its process died {RETRIES + 1} times: out of memory, or its node was lost")
        elif step >= experiment.num_steps:
            ledger.end(number, "finished")
        elif not self._should_stop() and (work.until is None or step < work.until):
            episodes = step * experiment.meta_batch_size
            ledger.end(number, "stopped early", f"by {ledger.search.scheduler} after {episodes} episodes")

    def _tell(self, number: int) -> None:
        trials = self._ledger.trials(self._numbers(), changed=number)
        for damage in self._ledger.damage():
            self._listener.on_note(damage)
        self._listener.on_trials(trials, next(trial for trial in trials if trial.number == number))

    def _numbers(self) -> list[int]:
        return [work.number for work in self._running.values()]
