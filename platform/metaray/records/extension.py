"""More steps of a finished run: in place, or in a new run that starts from its end.

In place its end is put aside, and its record says that it is to do more. A run asked for all the steps at once would
have done the same ones, at the same rates, but for one thing: where it would not have judged on meta-val after the step
that was the last, that judgement must not choose the learner.

A new run begins with the last checkpoint, meta-parameters and optimiser state, and counts on from its step, so that it
sees new episodes; which of its learners is the best is for its own judgements. It keeps a copy of what it began with.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from safetensors.torch import load, save

from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.manifest import Damaged, sealed, unsealed
from metaray.records.checkpoint_files import (
    CHECKPOINTS_FOLDER,
    STATE,
    checkpoint_name,
    progress_of,
    read_checkpoint,
    saved_steps,
    write_checkpoint,
)
from metaray.records.execution import EXECUTION
from metaray.records.judged import JUDGED
from metaray.records.result import RESULT
from metaray.records.run import LEARNER, RECORD_FILE, Run
from metaray.records.storage import Storage

ENDED_FOLDER = "ended"
CHECKPOINT = "checkpoint"
START_FOLDER = "start"


def ended_folder(step: int) -> str:
    """Folder that keeps the end which a run had after `step`, before it was extended: record, learner, result."""
    return f"{ENDED_FOLDER}/{checkpoint_name(step)}"


def first_other_rate(experiment: Experiment, num_steps: int) -> tuple[int, float, float] | None:
    """The first step at which the learning rate would differ if the run had `num_steps` steps in all.

    Returns:
        The step, its rate in the experiment, and its rate in the longer one; None if all rates are the same.
    """
    optimizer, done = experiment.optimizer, experiment.num_steps
    schedule, first = optimizer.whole_schedule, 0 if experiment.initial is None else experiment.initial.step
    groups = [group.outer_lr for group in optimizer.groups.values() if group.outer_lr is not None]
    for step in range(first, done):
        for full in (optimizer.outer_lr, *groups):
            now, then = (schedule.rate(full, step, total, 0) for total in (done, num_steps))
            if now != then:
                return step, now, then
    return None


def require_end(run: Run, step: int) -> None:
    """Check that the run has an undamaged checkpoint of its last step.

    Raises:
        InputError: If it has none.
    """
    try:
        _end_of(run.storage, step)
    except (Damaged, OSError) as error:
        raise InputError(
            f"run {run.name!r} cannot be extended: the checkpoint of step {step}, from which it would go on, is not "
            f"whole: {error}. A run of its own with more steps, under another --run name, leads to the same"
        ) from None


def extend_record(run: Run, experiment: Experiment, step: int, tags: Mapping[str, str]) -> None:
    """Turn a finished run into an unfinished, longer one. A kill at any time leaves it in one of the two states.

    Args:
        run: Run that no other process holds.
        experiment: Experiment with the new number of steps.
        step: Last step of the run so far.
        tags: New tags; a new MLflow run is made when training starts.

    Raises:
        InputError: If the run could not continue as a run with more steps from the start would.
        OSError: If the storage fails.
    """
    storage, aside = run.storage, ended_folder(step)
    judged = [JUDGED] if storage.exists(JUDGED) else []  # runs of before it was kept have none
    for name in (RECORD_FILE, *(f"{LEARNER}/{file}" for file in storage.names(LEARNER)), *judged, RESULT):
        storage.write(f"{aside}/{name}", storage.read(name))
    _forget_last_judgement(storage, step, experiment.evaluation.every)
    run.begin_anew(experiment, tags)
    for name in (RESULT, *judged):
        storage.delete_file(name)


def restore_end(run: Run, step: int) -> None:
    """The inverse of `extend_record`, where nothing was trained since."""
    storage, aside = run.storage, ended_folder(step)
    with suppress(Damaged):
        storage.write_folder(f"{CHECKPOINTS_FOLDER}/{checkpoint_name(step)}", sealed(_kept(storage, step)))
    judged = [JUDGED] if storage.exists(f"{aside}/{JUDGED}") else []
    for name in (*judged, RESULT, RECORD_FILE):  # which is a result of the run only once the record says so again
        storage.write(name, storage.read(f"{aside}/{name}"))


def begin_record(run: Run, experiment: Experiment, source: Storage, fingerprint: str, tags: Mapping[str, str]) -> None:
    """Create a run that starts from the end of another run; completes an interrupted call.

    Args:
        run: The new run, which no other process holds.
        experiment: Experiment of the new run, whose `initial` names the other run.
        source: Storage of the other run.
        fingerprint: Fingerprint of the data of the other run.
        tags: Tags of the new run.

    Raises:
        Damaged: If the state of the other run is damaged, and no copy is in the new run.
        OSError: If the storage fails.
    """
    storage, initial = run.storage, experiment.initial
    assert initial is not None
    if not storage.exists(RECORD_FILE):
        # First: what lies in a folder without a record would be taken for the next run's that is called so.
        origin = Run(initial.run, source).record
        run.begin(experiment, tags=tags, fingerprint=fingerprint, origin=origin)
    try:
        files = _start_of(storage)
    except Damaged:
        files = read_checkpoint(source, initial.step)
        storage.write_folder(START_FOLDER, sealed(files))
        _keep_execution(storage, source, experiment)
    if _newest_whole(storage) < initial.step:
        progress = replace(progress_of(files), best_step=None, best_score=None, window={}, clock={}, segments=0)
        tensors = {name: tensor for name, tensor in load(files[STATE]).items() if not name.startswith("best/")}
        write_checkpoint(storage, {**files, STATE: save(tensors)}, progress)


def _keep_execution(storage: Storage, source: Storage, experiment: Experiment) -> None:
    """A run that asks for the same goes on as the other one was computed."""
    asked = source.exists(EXECUTION) and Run("", source).record.experiment.get("execution", "auto")
    if asked == experiment.execution:
        storage.write(EXECUTION, source.read(EXECUTION))


def forget_record(run: Run) -> None:
    """The inverse of `begin_record`, where nothing was trained since."""
    for name in (CHECKPOINTS_FOLDER, START_FOLDER):
        if run.storage.names(name):
            run.storage.delete_folder(name)
    if run.storage.exists(EXECUTION):
        run.storage.delete_file(EXECUTION)
    run.storage.delete_file(RECORD_FILE)


def _start_of(storage: Storage) -> dict[str, bytes]:
    return unsealed(lambda name: storage.read(f"{START_FOLDER}/{name}"))


def _newest_whole(storage: Storage) -> int:
    """The step of the newest whole checkpoint; -1 where there is none."""
    for step in reversed(saved_steps(storage)):
        with suppress(Damaged):
            read_checkpoint(storage, step)
            return step
    return -1


def _forget_last_judgement(storage: Storage, step: int, every: int) -> None:
    """Take from the last checkpoint what a run with more steps would not know, since it judges at other steps."""
    files = _end_of(storage, step)
    progress = progress_of(files)
    before = step - step % every if every else 0
    if progress.best_step != step or (step == before and step > 0):
        return
    storage.write_folder(f"{ended_folder(step)}/{CHECKPOINT}", sealed(files))
    tensors = load(files[STATE])
    best_step = best_score = None
    if before:
        donor = _between(storage, before, step)
        known = progress_of(donor)
        best_step, best_score = known.best_step, known.best_score
        source = "meta/" if best_step == known.step else "best/"
        found = {name.removeprefix(source): one for name, one in load(donor[STATE]).items() if name.startswith(source)}
        tensors |= {f"best/{name}": tensor for name, tensor in found.items()}
    progress = replace(progress, best_step=best_step, best_score=best_score)
    write_checkpoint(storage, {**files, STATE: save(tensors)}, progress)


def _between(storage: Storage, first: int, end: int) -> dict[str, bytes]:
    """The files of the newest whole checkpoint from step `first` on, before `end`."""
    for step in reversed([step for step in saved_steps(storage) if first <= step < end]):
        with suppress(Damaged):
            return read_checkpoint(storage, step)
    raise InputError(
        f"{storage.shown} cannot be extended: its best learner is that of step {end}, which a run with more steps "
        f"would not have judged, and the checkpoint of step {first}, with the best until then, is not whole. A run of "
        "its own with more steps, under another --run name, leads to the same"
    )


def _end_of(storage: Storage, step: int) -> dict[str, bytes]:
    """The files of the last checkpoint, as they were when the run ended: an extension may have been broken off."""
    try:
        return _kept(storage, step)
    except Damaged:
        return read_checkpoint(storage, step)


def _kept(storage: Storage, step: int) -> dict[str, bytes]:
    folder = f"{ended_folder(step)}/{CHECKPOINT}"
    return unsealed(lambda name: storage.read(f"{folder}/{name}"))
