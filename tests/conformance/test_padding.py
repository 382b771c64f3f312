"""Ragged inputs: how far they are padded matters to no algorithm, in its loss, its meta-gradient or its predictions."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from jobs.benchmarks.trials import SETTINGS
from metaray.algorithms import ALGORITHMS
from metaray.algorithms.algorithm import Algorithm, start
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.task_shape import TaskShape
from metaray.data.preprocessing import Preprocessing, mask_of
from metaray.data.ragged import LENGTHS, VALUES, FeatureShape, gather, joined
from metaray.episodes.inputs import mapped, take
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.models.comparison import Comparison
from metaray.models.model import Model, Network
from metaray.tasks import Binary, Classification, Regression, TaskKind
from tests.conformance.bench import Trial, close, every

TOLERANCE = 1e-6
SIZE, SHOTS, QUERIES, WAYS = 3, 2, 2, 3
TASKS_OF: dict[str, TaskKind] = {
    "classification": Classification(),
    "binary": Binary(),
    "regression": Regression(target_size=2),
}


class Sets(Preprocessing):
    """Sets of points."""

    kind: ClassVar[str] = "sets"

    @property
    def feature_shape(self) -> tuple[None, int]:
        return (None, SIZE)

    def normalize(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"points": x[VALUES] * 2 + 1, "mask": mask_of(x)}

    def comparable(self, x: dict[str, Tensor]) -> Tensor:
        return (x["points"] * x["mask"][..., None]).sum(1)


class Pooling(nn.Module):
    """The mean of the points, each sent through a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.points, self.body = nn.Linear(SIZE, 6), nn.Linear(6, 5)

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        points = torch.tanh(self.points(x["points"]))
        mask = x["mask"][..., None].to(points.dtype)
        found: Tensor = torch.tanh(self.body((points * mask).sum(1) / mask.sum(1)))
        return found


class Mean(Model):
    kind: ClassVar[str] = "mean"

    def build(self, feature_shape: FeatureShape, outputs: int | None) -> nn.Module:
        return Network(Pooling(), 5, outputs)


def episode(task: TaskKind, *, support: int, query: int, seed: int = 0) -> TensorEpisode:
    """One task, each side of it padded to a length: normalised, in float64."""
    generator, preprocessing = np.random.default_rng(seed), Sets()
    ways = task.labels(WAYS) if task.has_classes else WAYS
    counts = (ways * SHOTS, ways * QUERIES)
    rows = [generator.standard_normal((generator.integers(1, 8), SIZE)).astype(np.float32) for _ in range(sum(counts))]
    targets = generator.standard_normal((sum(counts), 0 if task.has_classes else task.outputs(1)))
    sides, start = [], 0
    for each, length in zip(counts, (support, query), strict=True):
        here = np.arange(start, start + each)
        (compact,) = gather(joined(rows, "row"), here, length=length)
        x = preprocessing.normalize(mapped(torch.from_numpy, compact))
        labels = torch.arange(ways).repeat_interleave(each // ways)
        y = labels if task.has_classes else torch.from_numpy(targets[here])
        sides.append(Examples(x | {"points": x["points"].double()}, y))
        start += each
    return TensorEpisode(sides[0], sides[1], torch.tensor(5), torch.arange(WAYS if task.labels_vary else 1))


def prepared(trial: Trial) -> tuple[Algorithm, Tensors, Context]:
    """An algorithm, its initial meta-parameters, and the context of a task in training."""
    task, own = TASKS_OF[trial.task], TASKS_OF[trial.task].labels_vary
    algorithm = ALGORITHMS[trial.kind].parse(
        {"batch_norm": trial.protocol, **SETTINGS.get(trial.kind, {})}, where=trial.kind
    )
    shape = TaskShape((None, SIZE), WAYS if own else 1, task, WAYS + 2 if own else 0, Sets())
    network, meta = start(algorithm, Mean(), shape, seed=1)
    if not meta:  # the baseline
        network = Comparison(Sets())
    network.double()
    meta = {name: tensor.double().requires_grad_() for name, tensor in meta.items()}
    context = Context(network=network, ways=task.labels(shape.ways), training=True, task=task)
    return algorithm, meta, context


def computed(trial: Trial, task: TensorEpisode) -> dict[str, Tensor]:
    """Loss, meta-gradient and predictions of a task."""
    algorithm, meta, context = prepared(trial)
    found = {}
    if meta:
        gradient, (loss, _) = algorithm.meta_gradient(meta, task, context)
        found = {"loss": loss, **gradient}
    adapted = algorithm.adapt(meta, task.support, context)
    return found | {"output": algorithm.predict(meta, adapted, task.query.x, context)}


@every()
def test_padding_does_not_matter(trial: Trial) -> None:
    """The same task padded to another length, and with its query padded to another than its support."""
    make = partial(episode, TASKS_OF[trial.task])
    expected = computed(trial, make(support=8, query=8))
    for support, query in ((16, 16), (32, 32), (8, 16), (24, 8)):
        found = computed(trial, make(support=support, query=query))
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            close(found[name], tensor, tolerance=TOLERANCE)


@every(trained=True)
def test_chunks_of_dicts_are_mapped_over(trial: Trial) -> None:
    algorithm, meta, context = prepared(trial)
    tasks = [episode(TASKS_OF[trial.task], support=8, query=8, seed=seed) for seed in (0, 1)]
    sides = [
        Examples(mapped_pair(torch.stack, one.x, other.x), torch.stack([one.y, other.y]))
        for one, other in zip(*(task[:2] for task in tasks), strict=True)
    ]
    chunk = TensorEpisode(
        sides[0], sides[1], torch.stack([t.seed for t in tasks]), torch.stack([t.classes for t in tasks])
    )
    alone = [algorithm.meta_gradient(meta, task, context) for task in tasks]
    together = algorithm.meta_gradient(meta, chunk, context.with_batched(True))
    close(together.outcome.loss, torch.cat([one.outcome.loss for one in alone]), tolerance=TOLERANCE)
    for name in meta:
        close(together.gradient[name], alone[0].gradient[name] + alone[1].gradient[name], tolerance=TOLERANCE)


def mapped_pair(
    function: Callable[[list[Tensor]], Tensor], one: dict[str, Tensor], other: dict[str, Tensor]
) -> dict[str, Tensor]:
    return {name: function([one[name], other[name]]) for name in one}


def test_the_mask_is_what_tells() -> None:
    task = episode(Classification(), support=8, query=16)
    assert task.support.x["mask"].sum(1).tolist() != [8] * 6 and take(task.query.x, 0)["points"].shape == (16, SIZE)
    assert LENGTHS not in task.support.x
