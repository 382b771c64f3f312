"""Learners and adapted tasks in one readable line, as `repr` shows them."""

from collections.abc import Hashable, Sequence

from metaray.algorithms.algorithm import Algorithm
from metaray.data.preprocessing import Preprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.models.custom import Custom
from metaray.models.model import Model
from metaray.tasks import TaskKind

SHOWN_CLASSES = 5
SHOWN_LETTERS = 100


def parts_line(algorithm: Algorithm, model: Model, preprocessing: Preprocessing) -> str:
    """One line about a learner: its algorithm, its network, and the inputs it takes."""
    network = model.path if isinstance(model, Custom) else type(model).__name__
    shape = "x".join("any" if size is None else str(size) for size in preprocessing.feature_shape)
    return f"{type(algorithm).__name__}, {network}, {preprocessing.input_word}s {shape}"


def spec_line(spec: EpisodeSpec, fixed_ways: bool, task: TaskKind) -> str:
    """One line about the tasks that a learner was evaluated on."""
    whole = spec.in_short.replace("-way", "-way (fixed)") if fixed_ways else spec.in_short
    return task.told(whole, spec.shots_in_short)


def classes_line(classes: Sequence[Hashable]) -> str:
    """One line about classes: their number, and the first of them."""
    shown = ", ".join(map(repr, classes[:SHOWN_CLASSES]))
    if len(shown) > SHOWN_LETTERS:
        shown = f"{shown[:SHOWN_LETTERS]}..."
    return f"{len(classes)} classes: {shown}{', ...' if len(classes) > SHOWN_CLASSES else ''}"
