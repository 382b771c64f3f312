"""metaray: meta-train few-shot learners on a Ray cluster, register them, adapt them to new tasks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from metaray import moved

if TYPE_CHECKING:
    from pathlib import Path

    from metaray.data.preprocessing import ImagePreprocessing as ImagePreprocessing
    from metaray.data.preprocessing import VectorPreprocessing as VectorPreprocessing
    from metaray.learners.learner import AdaptedTask as AdaptedTask
    from metaray.learners.learner import Learner as Learner

__all__ = ["AdaptedTask", "ImagePreprocessing", "Learner", "VectorPreprocessing", "load", "load_task"]

_HOMES = {
    "AdaptedTask": "metaray.learners.learner",
    "ImagePreprocessing": "metaray.data.preprocessing",
    "Learner": "metaray.learners.learner",
    "VectorPreprocessing": "metaray.data.preprocessing",
}
"""Where the classes offered here live. They are imported when they are asked for: `import metaray` alone is light."""

# What the package logs is for whoever asks for it, as the standard library advises libraries.
logging.getLogger(__name__).addHandler(logging.NullHandler())

moved.install()


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load(model: str | Path, *, tracking_uri: str | None = None, trust: Sequence[str] = ()) -> Learner:
    """Load a learner from the registry, from a run or from a folder.

    Example: `metaray.load("models:/omniglot-maml@champion").adapt(x, y).predict(x_new)`.

    Args:
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `runs:/ID/PATH`, or a learner's folder.
        tracking_uri: of MLflow; None takes MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.
        trust: packages besides metaray whose code the learner may name.

    Raises:
        InputError: if there is no such model, or it asks for code that is not trusted.
    """
    # Imported here: `import metaray` alone stays light, and pure stages need no MLflow.
    import tempfile
    from pathlib import Path

    from metaray.serving.loading import load_learner

    if not str(model).startswith(("models:", "runs:")):
        return load_learner(Path(model), trust=trust)
    from metaray.tracking import artifact
    from metaray.tracking.server import MlflowServer

    server = MlflowServer.of(tracking_uri)
    server.prepare()
    with tempfile.TemporaryDirectory() as scratch:
        return load_learner(artifact.download(server, str(model), Path(scratch)), trust=trust)


def load_task(path: str | Path, *, trust: Sequence[str] = ()) -> AdaptedTask:
    """Load an adapted task that `task.save(path)` or `metaray adapt --save` wrote; it predicts as it did then.

    Example: `metaray.load_task("my-task").predict(x_new)`.

    Args:
        path: of the task's folder.
        trust: packages besides metaray whose code its learner may name.

    Raises:
        InputError: if there is no whole task, or it asks for code that is not trusted.
    """
    from pathlib import Path

    from metaray.learners.loading import load_task as read_task

    return read_task(Path(path), trust=trust)
