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
    """How a learner adapts, its network, and what it takes."""
    network = model.path if isinstance(model, Custom) else type(model).__name__
    shape = "x".join(map(str, preprocessing.feature_shape))
    return f"{type(algorithm).__name__}, {network}, {preprocessing.input_word}s {shape}"


def spec_line(spec: EpisodeSpec, fixed_ways: bool, task: TaskKind) -> str:
    """What a learner was judged at."""
    return task.told(str(spec.ways), fixed_ways, str(spec.shots))


def classes_line(classes: Sequence[Hashable]) -> str:
    """How many there are, and the first of them."""
    shown = ", ".join(map(repr, classes[:SHOWN_CLASSES]))
    if len(shown) > SHOWN_LETTERS:
        shown = f"{shown[:SHOWN_LETTERS]}..."
    return f"{len(classes)} classes: {shown}{', ...' if len(classes) > SHOWN_CLASSES else ''}"
