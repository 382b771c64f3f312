"""Import paths of before: recipes, algorithms and networks of users that name a module where it once was still work.

Only what such code needs is listed, not every module that ever moved. A path is listed for good once it is, since a
registered learner may depend on the package that holds it.
"""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "metaray.algorithms.embedding": "metaray.algorithms.families.embedding",
    "metaray.algorithms.head": "metaray.algorithms.families.head",
    "metaray.algorithms.inner_loop": "metaray.algorithms.families.inner_loop",
    "metaray.algorithms.inner_lr": "metaray.algorithms.families.inner_lr",
    "metaray.algorithms.joint": "metaray.algorithms.families.joint_training",
    "metaray.algorithms.learner": "metaray.learners.learner",
    "metaray.algorithms.parts": "metaray.algorithms.families.prefixes",
    "metaray.algorithms.problem": "metaray.algorithms.task_shape",
    "metaray.algorithms.quadratic_program": "metaray.algorithms.families.quadratic_program",
    "metaray.algorithms.ridge": "metaray.algorithms.families.ridge",
    "metaray.learners.containers": "metaray.containers",
    "metaray.learners.labels": "metaray.tasks.labels",
    "metaray.training.experiment": "metaray.experiment.experiment",
    "metaray.training.optimizer": "metaray.experiment.optimizer",
    "metaray.training.overrides": "metaray.experiment.overrides",
}
"""Current path of each module that has moved, by its old path."""

RENAMED = {"metaray.algorithms.problem": {"Problem": "TaskShape"}, "metaray.algorithms.head": {"Fit": "HeadFit"}}
"""New names of objects that were also renamed, by the old path of their module."""


class Moved(MetaPathFinder, Loader):
    """Import finder for modules that have moved: an old path gives the names of the module's current place."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification of a module that moved; None for any other."""
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Make the old module look up its names in the module at the current place."""
        old = module.__name__
        new, renamed = importlib.import_module(MOVED[old]), RENAMED.get(old, {})

        def get(name: str) -> Any:
            return getattr(new, renamed.get(name, name))

        module.__dict__["__getattr__"] = get
        warnings.warn(f"{old} is {MOVED[old]} now: import it from there", DeprecationWarning, stacklevel=2)


def install() -> None:
    """Let old paths be found where nothing else is; once a process."""
    if not any(isinstance(finder, Moved) for finder in sys.meta_path):
        sys.meta_path.append(Moved())
