"""Learners and tasks, rebuilt from their folders."""

from collections.abc import Sequence
from pathlib import Path

import torch

from metaray.algorithms import ALGORITHMS
from metaray.algorithms.algorithm import Algorithm, start
from metaray.data.preprocessing import PREPROCESSINGS, Preprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.imports import parse_kind
from metaray.learners.encoder import check_weights
from metaray.learners.encoder_link import linked_tensors, with_body
from metaray.learners.growth import Kept
from metaray.learners.learner import AdaptedTask, Learner
from metaray.learners.learner_file import FORMAT_LINKED, Contents, read_folder
from metaray.learners.learner_network import built, check_state, check_tensors
from metaray.learners.own_code import require_trusted_code
from metaray.learners.task_file import read_task
from metaray.models import MODELS
from metaray.models.model import Model
from metaray.tasks import TASK_KINDS, TaskKind
from metaray.tracebacks import summary


def load_learner(folder: Path, *, trust: Sequence[str] = ()) -> Learner:
    """Load a learner that `Learner.save` wrote. Nothing is unpickled, and checksums are verified.

    Args:
        folder: Folder of the learner.
        trust: Packages besides metaray that the learner's import paths may lead to.

    Raises:
        InputError: If the folder is damaged or is not a learner's, or names code of a package that is not trusted.
    """
    return _rebuilt(folder, read_folder(folder), trust)


def load_task(folder: Path, *, trust: Sequence[str] = ()) -> AdaptedTask:
    """Load a task that `AdaptedTask.save` wrote. Nothing is unpickled, and checksums are verified.

    Args:
        folder: Folder of the task.
        trust: Packages besides metaray that the import paths of the task's learner may lead to.

    Raises:
        InputError: If the folder is damaged or is not a task's, its parts do not fit together, or it names code of a
            package that is not trusted.
    """
    contents, parts = read_task(folder)
    learner = _rebuilt(folder, contents, trust)
    try:
        learner.task.check_classes(parts.classes, learner.ways, parts.flat)
    except ValueError as error:
        raise InputError(f"{folder}: {error}: {learner}") from None
    context = learner.context(len(parts.classes) or 1, inner_steps=parts.inner_steps)
    kept = Kept.of(parts.kept)
    task = AdaptedTask(learner, parts.classes, parts.adapted, context, parts.flat, columns=parts.columns, kept=kept)
    _check_answers(task, folder)
    return task


def _rebuilt(folder: Path, contents: Contents, trust: Sequence[str]) -> Learner:
    """The learner of a folder's contents."""
    description, meta, state, encoder = contents
    code = require_trusted_code(description, trust, str(folder))
    link = None
    if description["format"] == FORMAT_LINKED:
        link, tensors = linked_tensors(description, str(folder))
        before = isinstance(found := description["preprocessing"], dict) and found.get("kind") == "encoded"
        encoder, state = (tensors, state) if before else (encoder, with_body(state, tensors))
    learner = Learner(
        algorithm=parse_kind(description["algorithm"], ALGORITHMS, Algorithm, what="algorithm", trust=trust),
        # Held: no file is read or fetched because a learner of somebody else's says so.
        model=parse_kind(description["model"], MODELS, Model, what="model", trust=trust).held,
        meta=meta,
        preprocessing=parse_kind(
            description["preprocessing"], PREPROCESSINGS, Preprocessing, what="preprocessing", trust=trust
        ),
        spec=EpisodeSpec.parse(description["spec"], where=f"{folder}: spec"),
        inner_steps=description["inner_steps"],
        step=description["step"],
        seed=description["seed"],
        task=parse_kind(description["task"], TASK_KINDS, TaskKind, what="task", trust=trust),
        classes=description["classes"],
        provenance=description["provenance"],
        state=state,
        rebuilt=description["rebuilt"],
        code=code,
        encoder=encoder,
        link=link,
    )
    _check_parameters(learner, folder, trust)
    return learner


def _check_parameters(learner: Learner, folder: Path, trust: Sequence[str]) -> None:
    """Refuse an algorithm that does not fit the targets, and parameters that are not those of the learner's model."""
    algorithm = learner.algorithm
    try:
        algorithm.check_task(learner.task)
        network, initial = built(lambda: start(algorithm, learner.model, learner.task_shape, seed=learner.seed))
        check_tensors(initial, learner.meta, "parameter")
        check_state(network, learner.state, learner.rebuilt)
        check_weights(learner.preprocessing, learner.encoder, trust=trust)
        learner._unused.append(network)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error


def _check_answers(task: AdaptedTask, folder: Path) -> None:
    """Refuse tensors from which the algorithm can't predict; which they are is known to it alone."""
    learner, context = task.learner, task.context
    wanted = (2, learner.task.outputs(context.ways))
    try:
        with torch.no_grad():  # two inputs, since transductive batch norm takes no single one
            x = learner.task_shape.probe(2)
            found = tuple(learner.algorithm.predict(learner.meta, task.adapted, x, context).shape)
    except Exception as error:
        raise InputError(
            f"{folder}: a {learner.algorithm.kind} learner can't predict with what the task holds: {summary(error)}"
        ) from error
    if found != wanted:
        raise InputError(f"{folder}: its predictions have the shape {list(found)}, not {list(wanted)}")
