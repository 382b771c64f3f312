"""Open the folder of a learner. Nothing in it is unpickled, and no code outside metaray is imported unless trusted."""

from collections.abc import Sequence
from pathlib import Path

from metaray.errors import InputError
from metaray.learners.learner import Learner
from metaray.learners.loading import load_learner as read_learner


def load_learner(folder: Path, trust: Sequence[str] = ()) -> Learner:
    """Load the learner that `Learner.save` wrote to `folder`.

    Args:
        folder: Folder that holds `learner.json`.
        trust: Top-level packages, besides metaray, that the learner's model or algorithm may be imported from.

    Raises:
        InputError: If the folder holds no learner or a damaged one, or names code of a package that is not trusted.
    """
    if not folder.is_dir():
        raise InputError(f"learner folder {str(folder)!r} does not exist")
    return read_learner(folder, trust=trust)
