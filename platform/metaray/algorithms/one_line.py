"""Learners and adapted tasks in one readable line, as `repr` shows them."""

from typing import TYPE_CHECKING

from metaray.models.custom import Custom

if TYPE_CHECKING:
    from metaray.algorithms.learner import AdaptedTask, Learner

SHOWN_CLASSES = 5
SHOWN_LETTERS = 100


def learner_line(learner: "Learner") -> str:
    """What it is, what it takes, what it was judged at and how large it is; no weights."""
    shots, shape = learner.spec.shots, "x".join(map(str, learner.preprocessing.feature_shape))
    if learner.target_size is None:
        task = f"{learner.ways}-way (fixed), {shots}-shot" if learner.ways else f"{learner.spec.ways}-way {shots}-shot"
    else:
        task = f"{shots}-shot regression of {learner.target_size} value{'' if learner.target_size == 1 else 's'}"
    numbers = sum(tensor.numel() for tensor in learner.meta.values())
    model = learner.model.path if isinstance(learner.model, Custom) else type(learner.model).__name__
    takes = f"{learner.preprocessing.input_word}s {shape}"
    return (
        f"Learner({type(learner.algorithm).__name__}, {model}, {task}, {takes}, {numbers:,} parameters, "
        f"after step {learner.step})"
    )


def task_line(task: "AdaptedTask") -> str:
    """Its classes, and the learner that adapted."""
    if task.context.regression:
        return f"AdaptedTask(of {learner_line(task.learner)})"
    shown = ", ".join(map(repr, task.classes[:SHOWN_CLASSES]))
    if len(shown) > SHOWN_LETTERS:
        shown = f"{shown[:SHOWN_LETTERS]}..."
    more = ", ..." if len(task.classes) > SHOWN_CLASSES else ""
    return f"AdaptedTask({len(task.classes)} classes: {shown}{more}; of {learner_line(task.learner)})"
