"""More steps of a finished run: in place where it becomes what a longer run would have been, else as a new run."""

import time
from dataclasses import dataclass
from typing import Any

import torch

from metaray.api.train import NotUploaded, train
from metaray.config import replace
from metaray.displays.progress import Progress, shown_run
from metaray.errors import InputError, RunFailed, RunStopped
from metaray.experiment.experiment import Experiment, Initial
from metaray.experiment.packages import packages_of
from metaray.models.state import kept
from metaray.records.checkpoint import load_checkpoint
from metaray.records.events import Event
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
from metaray.records.run import Run
from metaray.records.storage import Storage
from metaray.tracking.report import Report
from metaray.training.outer_loop import initial_state


@dataclass(frozen=True)
class Extension:
    """The plan for extending a finished run, before anything is done.

    Attributes:
        finished: The experiment that the run has trained.
        experiment: The same experiment with the extended number of steps.
        source: The finished run.
        target: The run that will be trained: the finished run itself, or a new one.
        said: What will be done, and why, one sentence each.
    """

    finished: Experiment
    experiment: Experiment
    source: Run
    target: Run
    said: tuple[str, ...]

    @property
    def in_place(self) -> bool:
        """Whether the finished run itself is trained further."""
        return self.target == self.source


def extend(
    experiment: Experiment,
    steps: int,
    *,
    run: str | None,
    storage: str = "runs",
    progress: Progress = True,
    **options: Any,
) -> Report:
    """Train a finished run for more outer steps, in place or as a new run.

    It is extended in place if no learning rate depends on the number of steps: the run then becomes, to the bit, what
    training for all steps at once would have given, and its earlier results are kept in its folder. Otherwise a new run
    named `NAME-extended-M`, of M steps in all, starts from the run's parameters and optimiser state. Which of the two
    happens is reported first, with the reason.

    Example: `metaray.extend(experiment, 5000, run="first")`.

    Args:
        experiment: The experiment that the run trained; its number of steps does not matter.
        steps: Number of additional outer steps.
        run: Name of the finished run.
        storage: Folder or URI that holds the folders of all runs.
        progress: Whether to show progress; or a listener to the run's events, or a function that makes one.
        options: Further options of `metaray.train`.

    Returns:
        How the extended or new run ended. It prints as the command line does.

    Raises:
        InputError: If there is no such run, or it is not finished, trained another experiment, or cannot be extended.
            Nothing has been trained then, and the run is unchanged.
        RunFailed: If training failed, as in `train`.
        NotUploaded: If training finished, but a tracker did not accept the results.
        RunStopped: If `should_stop` returned true.
    """
    extension = plan_extension(experiment, steps, run=run, storage=storage)
    with shown_run(progress, extension.experiment) as display:
        for text in extension.said:
            display.on_event(Event("note", 0, {}, time.time(), text))
        _begin(extension)
        try:
            return train(extension.experiment, run=extension.target.name, storage=storage, progress=display, **options)
        except NotUploaded:
            raise
        except (InputError, RunFailed, RunStopped) as ended:
            if not (isinstance(ended, InputError) and _withdrawn(extension)):
                ended.add_note(f"{_going_on(extension)} goes on")
            raise


def plan_extension(experiment: Experiment, steps: int, *, run: str | None, storage: str) -> Extension:
    """Plan whether and how a finished run can be trained for more steps; nothing is changed.

    Args:
        experiment: The experiment that the run has trained; its number of steps does not matter.
        steps: Number of additional outer steps.
        run: Name of the run.
        storage: Folder or URI that holds the folders of all runs.

    Raises:
        InputError: If there is no such run, or it is not finished, trained another experiment, or cannot be extended.
    """
    if steps < 1:
        raise InputError(f"--extend {steps}: give a number of steps, at least 1")
    if run is None:
        raise InputError(f"--extend {steps}: name the finished run that is to do more steps: --run NAME")
    root = Storage(storage)
    recorded = Run.find(root, run).experiment(packages_of(experiment))
    finished = replace(experiment, num_steps=recorded.num_steps, initial=recorded.initial)
    source = _finished(root, finished, run)
    require_end(source, finished.num_steps)
    longer = replace(finished, num_steps=finished.num_steps + steps)
    other = first_other_rate(finished, longer.num_steps)
    if other is None:
        return Extension(finished, longer, source, source, _said_in_place(source, finished, longer))
    start = Initial(run=run, step=finished.num_steps, parameters_sha256=source.result.parameters_sha256)
    longer = replace(longer, initial=start)
    _require_parameters(source, finished, start)
    name = f"{run}-extended-{longer.num_steps}"
    target = Run(name, root.child(name))
    there = target.is_begun
    if there:
        target.require(longer)  # refuses what another experiment has made
    return Extension(finished, longer, source, target, _said_of_new(run, name, finished, longer, other, there=there))


def _begin(extension: Extension) -> None:
    """Write the run that is to go on down as such."""
    source, target, done = extension.source, extension.target, extension.finished.num_steps
    if extension.in_place:
        with source.held():
            _require_finished(source, extension.finished)  # again, now that nobody else can write to it
            extend_record(source, extension.experiment, done, _tags(source, done))
        return
    with target.held():
        if not target.is_finished:
            record = source.record
            begin_record(target, extension.experiment, source.storage, record.source_fingerprint, _tags(source, done))


def _withdrawn(extension: Extension) -> bool:
    """Undo what `_begin` did, if training has not begun; returns whether that is so."""
    target = extension.target
    with target.held():
        if target.tracking_run is not None:
            return False
        if extension.in_place:
            restore_end(target, extension.finished.num_steps)
        else:
            forget_record(target)
    return True


def _finished(root: Storage, experiment: Experiment, name: str) -> Run:
    """The finished run called `name`.

    Raises:
        InputError: If it is not finished, or trained another experiment.
    """
    run = Run.of(root, experiment, name)
    _require_finished(run, experiment)
    return run


def _require_finished(run: Run, experiment: Experiment) -> None:
    if run.is_finished:
        return
    how = f"`metaray train RECIPE --run {run.name} --set num_steps={experiment.num_steps}`"
    if experiment.initial is not None:
        how = "the command that it was made with"
    raise InputError(
        f"run {run.name!r} has not done its {experiment.num_steps} steps yet, so there is nothing to extend: {how} "
        "goes on"
    )


def _require_parameters(run: Run, finished: Experiment, start: Initial) -> None:
    """The last checkpoint must hold the parameters that the result speaks of."""
    state = initial_state(finished, torch.device("cpu"))
    load_checkpoint(run.storage, state)
    found = parameters_sha256(state.meta | kept(state.network))
    if (state.step, found) != (start.step, start.parameters_sha256):
        raise InputError(
            f"run {run.name!r} cannot be extended: its result tells of parameters {start.parameters_sha256[:12]}... "
            f"after step {start.step}, its newest checkpoint holds {found[:12]}... of step {state.step}"
        )


def _tags(run: Run, done: int) -> dict[str, str]:
    """Where a run comes from that goes on from the end of `folder`'s."""
    return {
        **run.record.tags,
        **provenance(),
        "extended.from_run": run.name,
        "extended.from_step": str(done),
        "extended.from_parameters_sha256": run.result.parameters_sha256,
        "extended.from_tracking_run": run.tracking_run or "",
    }


def _going_on(extension: Extension) -> str:
    """What to type where it was cut short."""
    if extension.in_place:
        return f"`metaray train RECIPE --run {extension.source.name} --set num_steps={extension.experiment.num_steps}`"
    return "the same command"


def _said_in_place(run: Run, finished: Experiment, longer: Experiment) -> tuple[str, ...]:
    done, steps = finished.num_steps, longer.num_steps
    return (
        f"run {run.name!r} goes on in place, from {done} to {steps} steps: the learning rates of its steps do not "
        f"depend on how many there are, so it becomes the run that {steps} steps at once would have been, to the bit",
        f"what it found out after step {done} is kept in {run.storage.shown}/{ended_folder(done)}",
        f"if this is cut short, `metaray train RECIPE --run {run.name} --set num_steps={steps}` goes on",
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
