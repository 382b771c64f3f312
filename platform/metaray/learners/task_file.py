"""The folder of an adapted task: the files of its learner, and beside them what the support set taught and its labels.

learner.json, parameters.safetensors, ...   the learner, as `Learner.save` writes it
adapted.safetensors                         what the algorithm's `adapt` returned
kept.safetensors                            what it keeps of the support to be extended; only where there is any
task.json                                   labels, inner steps, columns of CSV files
manifest.json                               size and SHA-256 of all of them
"""

import json
import tempfile
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load, save

from metaray.algorithms.algorithm import MOST_INNER_STEPS
from metaray.algorithms.context import Tensors
from metaray.config import Config
from metaray.errors import InputError
from metaray.json_text import parse_object
from metaray.learners.alone import require_alone
from metaray.learners.label_json import labels_from_json, labels_to_json
from metaray.learners.learner_file import Contents, contents_of
from metaray.manifest import MANIFEST, Damaged, sealed, unsealed

TASK = "task.json"
ADAPTED = "adapted.safetensors"
KEPT = "kept.safetensors"
FORMAT = 1


class TaskParts(NamedTuple):
    """The parts of an adapted task besides its learner; see `AdaptedTask`.

    Attributes:
        classes: Labels in the order of the outputs; empty for regression.
        adapted: What the algorithm's `adapt` returned for the support set.
        inner_steps: Number of inner steps of the adaptation; None for the algorithm's own number.
        flat: Whether targets were given as [n].
        columns: Names of the columns of CSV files, inputs first; empty if they are the learner's own names.
        kept: What the task keeps of its support set, as tensors by name.
    """

    classes: tuple[Hashable, ...]
    adapted: Tensors
    inner_steps: int | None
    flat: bool
    columns: tuple[str, ...]
    kept: Tensors = {}


class _Description(Config):
    """What `task.json` says; `names` and `axes` bring tensors back in the order and layout in which they were."""

    format: Literal[1]
    classes: list[Any]
    inner_steps: Annotated[int, Field(ge=0, le=MOST_INNER_STEPS, strict=True)] | None
    flat: Annotated[bool, Field(strict=True)]
    columns: tuple[str, ...]
    names: list[str]
    axes: dict[str, list[int]]


def save_task(path: Path, learner: dict[str, bytes], parts: TaskParts) -> None:
    """Write the folder of a task, completely or not at all.

    Args:
        path: Path of the folder.
        learner: Files of the task's learner, by name.
        parts: The other parts of the task.

    Raises:
        InputError: If `task_files`, `require_alone` or `write_task` raises it.
    """
    files = task_files(learner, parts)
    require_alone(learner)
    write_task(path, files)


def task_files(learner: dict[str, bytes], parts: TaskParts) -> dict[str, bytes]:
    """The files of a task by name; the manifest is last.

    Args:
        learner: Files of the task's learner, by name.
        parts: The other parts of the task.

    Raises:
        InputError: If a label cannot be saved; the message names it.
    """
    axes = {name: order for name, tensor in parts.adapted.items() if (order := _axes(tensor.stride())) is not None}
    plain = {
        name: tensor.detach().cpu().permute(axes.get(name) or list(range(tensor.ndim))).contiguous().clone()
        for name, tensor in parts.adapted.items()
    }
    description = {
        "format": FORMAT,
        "classes": labels_to_json(parts.classes),
        "inner_steps": parts.inner_steps,
        "flat": parts.flat,
        "columns": list(parts.columns),
        "names": list(parts.adapted),
        "axes": axes,
    }
    text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    own = {name: data for name, data in learner.items() if name != MANIFEST}
    if parts.kept:
        own[KEPT] = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in parts.kept.items()})
    return sealed(own | {TASK: text.encode(), ADAPTED: save(plain)})


def read_task(folder: Path) -> tuple[Contents, TaskParts]:
    """Read the folder of a task. Nothing is unpickled, and no network is built.

    Raises:
        InputError: If the folder is damaged or is not a task's, or its description is incomplete or invalid.
    """
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"task folder {str(folder)!r} {problem}")
    try:
        files = unsealed(lambda name: (folder / name).read_bytes())
    except (Damaged, OSError) as error:
        raise InputError(f"{folder} does not hold a whole task: {error}") from None
    contents = contents_of(folder, files)
    if TASK not in files or ADAPTED not in files:
        raise InputError(
            f"{folder} holds a learner that is adapted to no task yet; `metaray adapt {folder} --save TASK` or "
            "task.save(path) makes one of it"
        )
    try:
        tree = parse_object(files[TASK], where=str(folder / TASK))
        if tree.get("format") != FORMAT:
            raise InputError(f"{folder} has format {tree.get('format')}; this metaray reads format {FORMAT} of tasks")
        described = _Description.parse(tree, where=str(folder / TASK))
        kept = {name: tensor.clone() for name, tensor in load(files[KEPT]).items()} if KEPT in files else {}
        return contents, _parts(described, load(files[ADAPTED]))._replace(kept=kept)
    except InputError:
        raise
    except (ValueError, SafetensorError) as error:
        raise InputError(f"{folder} does not hold a whole task: {error}") from None


def check_place(path: Path) -> None:
    """Check, before any work is done, that a task can be saved at this path.

    Raises:
        InputError: If something other than a task lies there, or the folder cannot be written.
    """
    if (path.exists() or path.is_symlink()) and not ((path / TASK).is_file() or _is_empty(path)):
        raise InputError(f"can't save a task as {str(path)!r}: something else is there already; give a new name")
    parent = path.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise InputError(f"can't save a task as {str(path)!r}: {error}") from None


def write_task(path: Path, files: dict[str, bytes]) -> None:
    """Write the files of a task beside `path` and rename them, replacing an older task.

    Raises:
        InputError: If `check_place` raises it, or the disk is full.
    """
    check_place(path)
    place = path.absolute()
    try:
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name[:100]}.") as scratch:
            made = Path(scratch) / "task"
            made.mkdir()
            for name, data in files.items():
                (made / name).write_bytes(data)
            if place.exists():
                place.rename(Path(scratch) / "before")
            try:
                made.rename(place)
            except OSError:
                if (Path(scratch) / "before").exists():
                    (Path(scratch) / "before").rename(place)
                raise
    except OSError as error:
        raise InputError(f"can't save a task as {str(path)!r}: {error}") from None


def _parts(described: _Description, tensors: Tensors) -> TaskParts:
    if sorted(described.names) != sorted(tensors):
        raise ValueError(f"{ADAPTED} holds other tensors than {TASK} names")
    for name, order in described.axes.items():
        if name not in tensors or sorted(order) != list(range(tensors[name].ndim)):
            raise ValueError(f"{TASK} gives {name!r} axes that it does not have")
    # Copies: what safetensors hands out lies at any offset, and kernels may round differently there.
    adapted = {name: tensors[name].clone() for name in described.names}
    for name, order in described.axes.items():
        adapted[name] = adapted[name].permute([order.index(axis) for axis in range(len(order))])
    classes = labels_from_json(described.classes)
    return TaskParts(classes, adapted, described.inner_steps, described.flat, described.columns)


def _axes(strides: tuple[int, ...]) -> list[int] | None:
    """The order of axes in which a tensor lies in memory; None for the usual one, from the first to the last.

    Kernels may round differently where a matrix is the transpose of another one.
    """
    order = sorted(range(len(strides)), key=lambda axis: -strides[axis])
    return None if order == sorted(order) else order


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())
