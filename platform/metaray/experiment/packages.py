"""The packages whose code a description names. What somebody else wrote may name no other than one's own does."""

import re
from collections.abc import Iterator

from metaray.config import Config
from metaray.experiment.experiment import Experiment
from metaray.imports import paths_in
from metaray.trust import packages_in as packages_in

IMPORT_PATH = re.compile(r"[\w.]+:[\w.]+")


def packages_of(experiment: Experiment) -> tuple[str, ...]:
    """The packages whose code an experiment of the user's own names, sorted; without metaray itself."""
    paths = paths_in(experiment.model_dump(mode="json"))
    paths += [type(part).__module__ for part in _parts(experiment)]
    return packages_in(paths)


def _parts(config: Config) -> Iterator[Config]:
    """A description and all those inside it, such as the source that another source wraps."""
    yield config
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from _parts(value)
