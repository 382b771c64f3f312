"""Judging a learner on a stream of classes: how many of them it tells apart after more and more have arrived."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import metaray
from metaray.algorithms.class_means import ClassMeans
from metaray.api.evaluate import Changes, Count, judged_experiment, split_of
from metaray.displays.progress import JudgingProgress, shown_judging
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.learners.growth import WAYS_TO_GROW, How
from metaray.learners.learner import Learner
from metaray.records.stream import StreamCurve
from metaray.training.evaluation import require_fit
from metaray.training.stream import require_streamable, stream_scores

ORDERS = 5


def stream(
    model: str | Path,
    classes: str | Sequence[int],
    *,
    orders: int = ORDERS,
    how: How = "together",
    part: str = "meta-test",
    settings: Sequence[str] = (),
    shots: int | str | None = None,
    queries: Count = "rest",
    tracker: str = "mlflow",
    tracking_uri: str | None = None,
    trust: Sequence[str] = (),
    verify: bool = False,
    progress: JudgingProgress = True,
) -> StreamCurve:
    """Evaluate a learner on classes that arrive one after another, on held-out examples of all classes so far.

    The evaluation is that of OML by Javed and White ("Meta-learning representations for continual learning", NeurIPS
    2019, arXiv:1905.12588), with `AdaptedTask.extend` in place of their online gradient steps. Several orders, each
    with its own choice of classes and examples, give an interval. As a baseline, class means of the untrained inputs
    are evaluated beside the learner.

    Example: `metaray.stream("models:/omniglot@champion", (10, 50, 100, 200), shots=15)`.

    Args:
        model: URI or folder of the learner, as `metaray.load` takes it.
        classes: Numbers of classes after which the learner is evaluated, ascending, or a text such as "10,50,100".
        orders: Number of orders in which classes arrive.
        how: "together" or "continue", as in `AdaptedTask.extend`.
        part: Split whose classes arrive: "meta-val" or "meta-test".
        settings: Changes to the experiment stored with the learner, as `key=value`, for instance another `source.path`.
        shots: Number of support examples of each class; None takes that of the experiment.
        queries: Number of query examples of each class, or "rest" for all that are left.
        tracker: "mlflow" logs the curve to an MLflow run of its own, with the number of classes as the step; "none"
            does not.
        tracking_uri: URI of MLflow; None takes MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.
        trust: Packages besides metaray whose code the learner may name.
        verify: Whether to compare the data with their fingerprint even if that was done before.
        progress: Whether to show progress; or a function that is called with what is evaluated, and with the numbers of
            finished and of all classes.

    Returns:
        The curve of scores by number of classes. It prints as the command line shows it.

    Raises:
        InputError: If the model or the split is unknown, `classes` is not an ascending sequence, the learner's tasks
            take no new classes, or the source has too few classes.
        RunFailed: If MLflow does not accept the curve.
    """
    ends = numbers_of(classes)
    if orders < 1:
        raise InputError(f"orders: at least 1 (got {orders})")
    if how not in WAYS_TO_GROW or tracker not in ("mlflow", "none"):
        wrong, known = (how, WAYS_TO_GROW) if how not in WAYS_TO_GROW else (tracker, ("mlflow", "none"))
        raise InputError(f"a stream takes {' or '.join(known)} (got {wrong!r})")
    split = split_of(part)
    learner = metaray.load(model, tracking_uri=tracking_uri, trust=trust)
    require_streamable(learner)
    changes = Changes(settings, ends[-1], shots if shots is not None else _shots_of(learner), queries)
    experiment = judged_experiment(str(model), learner, changes, split, 2, trust, verify=verify)
    require_fit(learner, experiment)
    curve = _curve(str(model), learner, experiment, ends, orders, how, part, progress)
    if tracker == "mlflow":
        from metaray.tracking.server import MlflowServer
        from metaray.tracking.stream import log_stream

        params = {"classes": ",".join(map(str, ends)), "orders": str(orders), "how": how, "part": part}
        log_stream(MlflowServer.of(tracking_uri), experiment.name, curve, params)
    return curve


def numbers_of(classes: str | Sequence[int]) -> tuple[int, ...]:
    """The numbers of classes after which a learner is evaluated on a stream.

    Raises:
        InputError: If the numbers are not ascending, or the first is below two.
    """
    if isinstance(classes, str):
        words = [word.strip() for word in classes.split(",")]
        if not all(word.isdecimal() for word in words):
            raise InputError(f"a stream is given by numbers of classes, as in 10,50,100 (got {classes!r})")
        classes = [int(word) for word in words]
    found = tuple(classes)
    if not found or found[0] < 2 or any(low >= high for low, high in pairwise(found)):
        raise InputError(
            f"a stream is given by ascending numbers of classes, from 2 on, as in 10,50,100 (got {list(found)})"
        )
    return found


def _shots_of(learner: Learner) -> int:
    """Number of shots that the learner was judged at."""
    return learner.spec.most_shots


def _curve(
    model: str,
    learner: Learner,
    experiment: Experiment,
    ends: tuple[int, ...],
    orders: int,
    how: How,
    part: str,
    progress: JudgingProgress,
) -> StreamCurve:
    spec, split = experiment.eval_spec, split_of(part)
    judged = {"": learner, **_beside(learner)}
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in judged}
    with shown_judging(progress, "classes") as show:
        for order in range(orders):
            for name, one in judged.items():
                told = f"order {order + 1} of {orders}{f' by {name}' if name else ''}"
                scores = stream_scores(
                    one,
                    experiment.source,
                    split,
                    spec,
                    ends,
                    order=order,
                    seed=experiment.evaluation.seed,
                    how=how,
                    tell=lambda count, told=told: show(told, count, ends[-1]),  # type: ignore[misc]
                )
                found[name].append(tuple(scores))
    return StreamCurve(
        model=model,
        split=part,
        protocol=protocol_of_stream(spec, learner, how),
        quality=experiment.quality,
        classes=ends,
        orders=tuple(found.pop("")),
        baselines={name: tuple(one) for name, one in found.items()},
    )


def protocol_of_stream(spec: EpisodeSpec, learner: Learner, how: How) -> str:
    """The evaluation protocol of a stream in words."""
    grown = {
        "together": "the task extended as if adapted to all of them at once",
        "continue": "the task extended by one class after the other, each time by its examples alone",
    }
    queries = "all other examples" if spec.queries == "rest" else f"{spec.queries} examples"
    return (
        f"classes arrive with {spec.in_short.partition('-way ')[2].removesuffix('-shot')} support examples each, "
        f"{grown[how]}; judged on {queries} a class of all that have arrived, {learner.algorithm.batch_norm} batch norm"
    )


def _beside(learner: Learner) -> dict[str, Learner]:
    """Class means of the inputs, where these can be compared."""
    prepared, name = learner.preprocessing, ClassMeans.kind
    return {name: learner.baseline(name)} if prepared.compared is not None or name in prepared.baselines else {}
