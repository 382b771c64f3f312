"""More steps of a finished run: in place where it becomes what a longer run would have been, else as a new run."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace as with_options

import torch

from metaray.api.train import NotUploaded, Options, run
from metaray.config import replace
from metaray.errors import InputError, RunFailed, RunStopped
from metaray.experiment.experiment import Experiment, Initial
from metaray.experiment.packages import packages_of
from metaray.models.state import kept
from metaray.records.checkpoint import load_checkpoint
from metaray.records.events import Event, Listener
from metaray.records.extension import (
    begin_record,
    ended_folder,
    extend_record,
    first_other_rate,
    forget_record,
    require_end,
    restore_end,
)
from metaray.records.provenance import provenance
from metaray.records.result import parameters_sha256
from metaray.records.run_folder import RUN_FILE, RunFolder, find_run, open_run
from metaray.records.storage import Storage
from metaray.tracking.run_upload import Report
from metaray.training.outer_loop import initial_state
from metaray.training.session import LEARNER


@dataclass(frozen=True)
class Extension:
    """What is to become of a finished run, before anything of it is done.

    Attributes:
        finished: the experiment that it has trained.
        experiment: with all its steps.
        options: where and how it trains; its run is the one that goes on, in place or as a new one.
        source: name of the finished run.
        said: what will be done, and why, a sentence each.
    """

    finished: Experiment
    experiment: Experiment
    options: Options
    source: str
    said: tuple[str, ...]

    @property
    def in_place(self) -> bool:
        """Whether it is the finished run itself that goes on."""
        return self.options.run == self.source


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
    if (name := options.run) is None:
        raise InputError(f"--extend {steps}: name the finished run that is to do more steps: --run NAME")
    root = Storage(options.storage)
    recorded, _ = find_run(root, name, packages_of(experiment))
    finished = replace(experiment, num_steps=recorded.num_steps, initial=recorded.initial)
    folder = _finished(root, finished, name)
    require_end(folder, finished.num_steps)
    longer = replace(finished, num_steps=finished.num_steps + steps)
    other = first_other_rate(finished, longer.num_steps)
    if other is None:
        return Extension(finished, longer, options, name, _said_in_place(folder, finished, longer))
    assert folder.result is not None
    start = Initial(run=name, step=finished.num_steps, parameters_sha256=folder.result.parameters_sha256)
    longer = replace(longer, initial=start)
    _require_parameters(folder, finished, start)
    target = f"{name}-extended-{longer.num_steps}"
    there = root.child(target).exists(RUN_FILE)
    if there:
        open_run(root, longer, target)  # refuses what another experiment has made
    said = _said_of_new(name, target, finished, longer, other, there=there)
    return Extension(finished, longer, with_options(options, run=target), name, said)


def extend(extension: Extension, display: Listener, *, should_stop: Callable[[], bool] = lambda: False) -> Report:
    """Say what is done, and do it.

    Raises:
        InputError: before anything is trained, if something is wrong; the run is then as it was.
        RunFailed: if training failed, as `run` says.
        NotUploaded: if it is trained, but MLflow does not take it.
        RunStopped: if `should_stop` said so.
    """
    for text in extension.said:
        display.on_event(Event("note", 0, {}, time.time(), text))
    folder = _begun(extension)
    try:
        return run(extension.experiment, extension.options, display, should_stop=should_stop)
    except NotUploaded:
        raise
    except (InputError, RunFailed, RunStopped) as ended:
        if not (isinstance(ended, InputError) and _withdrawn(extension, folder)):
            ended.add_note(f"{_going_on(extension)} goes on")
        raise


def _begun(extension: Extension) -> RunFolder:
    """The run that is to go on, written down as such."""
    root, name, done = Storage(extension.options.storage), extension.source, extension.finished.num_steps
    folder = _finished(root, extension.finished, name)
    target = extension.options.run
    assert target is not None
    if extension.in_place:
        with folder.held():
            folder = _finished(root, extension.finished, name)  # again, now that nobody else can write to it
            extend_record(folder, extension.experiment, done, _tags(folder, done), learner=LEARNER)
        return folder
    new = RunFolder(target, root.child(target))
    with new.held():
        if new.reread().result is None:
            tags = _tags(folder, done)
            begin_record(new, extension.experiment, folder.storage, folder.fingerprint, tags)
    return new


def _withdrawn(extension: Extension, folder: RunFolder) -> bool:
    """Undo what `_begun` did, if training has not begun; returns whether that is so."""
    with folder.held():
        now = folder.reread()
        if now.tracking_run is not None:
            return False
        if extension.in_place:
            restore_end(folder, extension.finished.num_steps)
        else:
            forget_record(folder)
    return True


def _finished(root: Storage, experiment: Experiment, name: str) -> RunFolder:
    """The finished run called `name`.

    Raises:
        InputError: if it is not finished, or trained another experiment.
    """
    folder = open_run(root, experiment, name)
    if folder.result is None:
        how = f"`metaray train RECIPE --run {name} --set num_steps={experiment.num_steps}`"
        if experiment.initial is not None:
            how = "the command that it was made with"
        raise InputError(
            f"run {name!r} has not done its {experiment.num_steps} steps yet, so there is nothing to extend: {how} "
            "goes on"
        )
    return folder


def _require_parameters(folder: RunFolder, finished: Experiment, start: Initial) -> None:
    """The last checkpoint must hold the parameters that the result speaks of."""
    state = initial_state(finished, torch.device("cpu"))
    load_checkpoint(folder.storage, state)
    found = parameters_sha256(state.meta | kept(state.network))
    if (state.step, found) != (start.step, start.parameters_sha256):
        raise InputError(
            f"run {folder.name!r} cannot be extended: its result tells of parameters {start.parameters_sha256[:12]}... "
            f"after step {start.step}, its newest checkpoint holds {found[:12]}... of step {state.step}"
        )


def _tags(folder: RunFolder, done: int) -> dict[str, str]:
    """Where a run comes from that goes on from the end of `folder`'s."""
    assert folder.result is not None
    return {
        **folder.tags,
        **provenance(),
        "extended.from_run": folder.name,
        "extended.from_step": str(done),
        "extended.from_parameters_sha256": folder.result.parameters_sha256,
        "extended.from_tracking_run": folder.tracking_run or "",
    }


def _going_on(extension: Extension) -> str:
    """What to type where it was cut short."""
    if extension.in_place:
        return f"`metaray train RECIPE --run {extension.source} --set num_steps={extension.experiment.num_steps}`"
    return "the same command"


def _said_in_place(folder: RunFolder, finished: Experiment, longer: Experiment) -> tuple[str, ...]:
    done, steps = finished.num_steps, longer.num_steps
    return (
        f"run {folder.name!r} goes on in place, from {done} to {steps} steps: the learning rates of its steps do not "
        f"depend on how many there are, so it becomes the run that {steps} steps at once would have been, to the bit",
        f"what it found out after step {done} is kept in {folder.storage.shown}/{ended_folder(done)}",
        f"if this is cut short, `metaray train RECIPE --run {folder.name} --set num_steps={steps}` goes on",
    )


def _said_of_new(
    name: str,
    target: str,
    finished: Experiment,
    longer: Experiment,
    other: tuple[int, float, float],
    *,
    there: bool,
) -> tuple[str, ...]:
    done, steps, (step, now, then) = finished.num_steps, longer.num_steps, other
    return (
        f"run {name!r} cannot go on in place from {done} to {steps} steps: its learning rates depend on how many steps "
        f"there are (at step {step} it was {now:g}; of {steps} steps it would have been {then:g})",
        f"so a new run {target!r} starts from its parameters and optimiser state, counts on from step {done}, and has "
        f"the rates of a run of {steps} steps from there (now {longer.optimizer.lr_at(done, steps):g}); {name!r} stays "
        "as it is, and what the two have learned is not what a run of all steps at once would have",
        f"run {target!r} is there already: it goes on, or its result is shown"
        if there
        else "if this is cut short, the same command goes on",
    )
