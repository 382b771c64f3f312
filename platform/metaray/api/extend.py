"""More steps of a finished run: in place where it becomes what a longer run would have been, else as a new run."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from metaray.api.train import NotUploaded, Options, run
from metaray.config import replace
from metaray.errors import InputError, RunFailed, RunStopped
from metaray.experiment.experiment import Experiment
from metaray.experiment.packages import packages_of
from metaray.records.events import Event, Listener
from metaray.records.extension import (
    ended_folder,
    extend_record,
    first_other_rate,
    require_end,
    restore_end,
)
from metaray.records.provenance import provenance
from metaray.records.run_folder import RunFolder, find_run, open_run
from metaray.records.storage import Storage
from metaray.tracking.run_upload import Report
from metaray.training.session import LEARNER


@dataclass(frozen=True)
class Extension:
    """What is to become of a finished run, before anything of it is done.

    Attributes:
        experiment: with all its steps.
        options: where and how it trains; its run is the one that goes on.
        done: steps that it has done.
        said: what will be done, and why, a sentence each.
    """

    experiment: Experiment
    options: Options
    done: int
    said: tuple[str, ...]


def plan_extension(experiment: Experiment, options: Options, steps: int) -> Extension:
    """Find out whether and how a finished run can do more steps; changes nothing.

    Args:
        experiment: that the run has trained; of how many steps it speaks does not matter.
        options: with the name of the run.
        steps: how many more.

    Raises:
        InputError: if there is no such run, it is not finished, it trained another experiment, or it can't go on.
    """
    if steps < 1:
        raise InputError(f"--extend {steps}: give a number of steps, at least 1")
    if options.run is None:
        raise InputError(f"--extend {steps}: name the finished run that is to do more steps: --run NAME")
    root = Storage(options.storage)
    recorded, _ = find_run(root, options.run, packages_of(experiment))
    done = recorded.num_steps
    folder = _finished(root, replace(experiment, num_steps=done), options.run)
    longer = replace(experiment, num_steps=done + steps)
    require_end(folder, done)
    other = first_other_rate(recorded, longer.num_steps)
    if other is not None:
        raise InputError(_not_the_same(folder.name, done, longer, other))
    said = (
        f"run {folder.name!r} goes on in place, from {done} to {longer.num_steps} steps: the learning rates of its "
        f"steps do not depend on how many there are, so it becomes the run that {longer.num_steps} steps at once "
        "would have been, to the bit",
        f"what it found out after step {done} is kept in {folder.storage.shown}/{ended_folder(done)}",
        f"if this is cut short, {_going_on(folder.name, longer)} goes on",
    )
    return Extension(longer, options, done, said)


def extend(extension: Extension, display: Listener, *, should_stop: Callable[[], bool] = lambda: False) -> Report:
    """Say what is done, and do it.

    Raises:
        InputError: before anything is trained, if something is wrong; the run is then as it was.
        RunFailed: if training failed, as `run` says.
        NotUploaded: if it is trained, but MLflow does not take it.
        RunStopped: if `should_stop` said so.
    """
    experiment, options = extension.experiment, extension.options
    assert options.run is not None
    for text in extension.said:
        display.on_event(Event("note", 0, {}, time.time(), text))
    root = Storage(options.storage)
    shorter = replace(experiment, num_steps=extension.done)
    with _finished(root, shorter, options.run).held():
        folder = _finished(root, shorter, options.run)  # again, now that nobody else can write to it
        extend_record(folder, experiment, extension.done, _tags(folder, extension.done), learner=LEARNER)
    try:
        return run(experiment, options, display, should_stop=should_stop)
    except NotUploaded:
        raise
    except (InputError, RunFailed, RunStopped) as ended:
        if not (isinstance(ended, InputError) and _withdrawn(folder, extension.done)):
            ended.add_note(f"{_going_on(options.run, experiment)} goes on")
        raise


def _withdrawn(folder: RunFolder, done: int) -> bool:
    """Make it the finished run that it was, if training has not begun; returns whether that is so."""
    with folder.held():
        if folder.reread().tracking_run is not None:
            return False
        restore_end(folder, done)
    return True


def _finished(root: Storage, experiment: Experiment, name: str) -> RunFolder:
    """The finished run called `name`.

    Raises:
        InputError: if it is not finished, or trained another experiment.
    """
    folder = open_run(root, experiment, name)
    if folder.result is None:
        raise InputError(
            f"run {name!r} has not done its {experiment.num_steps} steps yet, so there is nothing to extend: "
            f"{_going_on(name, experiment)} goes on"
        )
    return folder


def _tags(folder: RunFolder, done: int) -> dict[str, str]:
    """Where the run comes from, from now on."""
    assert folder.result is not None
    return {
        **folder.tags,
        **provenance(),
        "extended.from_step": str(done),
        "extended.from_parameters_sha256": folder.result.parameters_sha256,
        "extended.from_tracking_run": folder.tracking_run or "",
    }


def _going_on(name: str, experiment: Experiment) -> str:
    return f"`metaray train RECIPE --run {name} --set num_steps={experiment.num_steps}`"


def _not_the_same(name: str, done: int, longer: Experiment, other: tuple[int, float, float]) -> str:
    step, now, then = other
    return (
        f"run {name!r} cannot go on in place from {done} to {longer.num_steps} steps: its learning rates depend on how "
        f"many steps there are (at step {step} it was {now:g}; of {longer.num_steps} steps it would have been "
        f"{then:g}). Train the longer schedule as a run of its own: `metaray train RECIPE --run OTHER --set "
        f"num_steps={longer.num_steps}`"
    )
