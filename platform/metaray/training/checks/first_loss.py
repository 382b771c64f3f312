"""A first loss that is far above that of guessing: training then begins with undoing what nobody meant."""

import math

from metaray.experiment.experiment import Experiment

FAR = 20.0
"""Times the loss of guessing. Prototypical networks on small embeddings begin at ten times that, and train well."""


def doubts_of(experiment: Experiment, loss: float, ways: int) -> tuple[str, ...]:
    """What to say of the loss of the first task before any step, where it is far above that of guessing its classes.

    Args:
        experiment: Experiment whose loss it is; where targets are values, nothing is known.
        loss: Mean cross-entropy on the query.
        ways: Number of ways of the task.
    """
    guessing = math.log(experiment.source.task.labels(ways))
    if not guessing or not loss > FAR * guessing:
        return ()
    kind, said = experiment.algorithm.kind, f"the first loss is {loss:.4g}, where guessing has {guessing:.3g}"
    if getattr(experiment.algorithm, "temperature", 0) is None:
        return (
            f"{said}: squared distances grow with the size of the embedding, and {kind} takes them as they are; "
            "algorithm.temperature=size divides them by it",
        )
    return (f"{said}: {kind} on {experiment.model.kind} begins with logits that are very large",)
