"""Every algorithm on a text encoder all of whose weights are trained: chunks, padding, and derivatives as they are."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from jobs.benchmarks.trials import SETTINGS
from metaray.algorithms import ALGORITHMS
from metaray.algorithms.algorithm import Algorithm, start
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.task_shape import TaskShape
from metaray.data.preprocessing import TextPreprocessing
from metaray.data.ragged import FeatureShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.errors import InputError
from metaray.models.encoders.encoder import EncoderNetwork
from metaray.models.model import Model
from metaray.tasks import Binary, Classification, Regression, TaskKind
from tests.conformance.bench import Trial, close, every
from tests.models.encoders.tiny import SHAPE, filled, tokenizer

TOLERANCE = 1e-8
TASKS_OF: dict[str, TaskKind] = {
    "classification": Classification(),
    "binary": Binary(),
    "regression": Regression(target_size=2),
}
WAYS = 3
TEXTS = TextPreprocessing(tokenizer=tokenizer(), longest=12)


class Tiny(Model):
    """A tiny random encoder, all of which is trained, or but its head."""

    kind: ClassVar[str] = "tiny"
    frozen: bool = False

    def build(self, feature_shape: FeatureShape, outputs: int | None) -> nn.Module:
        body = filled(SHAPE.build("mean", True)).requires_grad_(not self.frozen)
        return EncoderNetwork(body, SHAPE.size, outputs)


def side(task: TaskKind, each: int, length: int, seed: int) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    ways = task.labels(WAYS) if task.has_classes else WAYS
    lengths = torch.randint(1, 9, (ways * each,), generator=generator)
    mask = torch.arange(length) < lengths[:, None]
    tokens = torch.zeros(ways * each, length, dtype=torch.int64)
    tokens[:, :8] = torch.randint(0, SHAPE.vocabulary, (ways * each, 8), generator=generator)
    y = torch.arange(ways).repeat_interleave(each)
    values = torch.randn(ways * each, 2, generator=generator, dtype=torch.float64)
    return Examples({"tokens": tokens * mask, "mask": mask}, y if task.has_classes else values)


def episode(task: TaskKind, *, seed: int = 0, support: int = 8, query: int = 8) -> TensorEpisode:
    classes = torch.arange(WAYS if task.labels_vary else 1)
    return TensorEpisode(side(task, 2, support, 2 * seed), side(task, 2, query, 2 * seed + 1), torch.tensor(5), classes)


def prepared(trial: Trial, model: Model) -> tuple[Algorithm, Tensors, Context]:
    task, own = TASKS_OF[trial.task], TASKS_OF[trial.task].labels_vary
    fields = {"batch_norm": trial.protocol, **SETTINGS.get(trial.kind, {})}
    algorithm = ALGORITHMS[trial.kind].parse(fields, where=trial.kind)
    shape = TaskShape((None,), WAYS if own else 1, task, WAYS + 2 if own else 0, TEXTS)
    network, meta = start(algorithm, model, shape, seed=1)
    network.double()
    meta = {name: tensor.double().requires_grad_() for name, tensor in meta.items()}
    return algorithm, meta, Context(network=network, ways=task.labels(shape.ways), training=True, task=task)


def stacked(tasks: list[TensorEpisode]) -> TensorEpisode:
    sides = []
    for parts in zip(*(task[:2] for task in tasks), strict=True):
        x = {name: torch.stack([part.x[name] for part in parts]) for name in parts[0].x}
        sides.append(Examples(x, torch.stack([part.y for part in parts])))
    seeds, classes = (torch.stack([getattr(task, name) for task in tasks]) for name in ("seed", "classes"))
    return TensorEpisode(sides[0], sides[1], seeds, classes)


@every(trained=True, protocols=["inductive"])
@pytest.mark.parametrize("frozen", [False, True], ids=["whole", "head"])
def test_encoders_in_chunks(trial: Trial, frozen: bool) -> None:
    """One by one and mapped over, with a support and a query of other lengths: the same gradients."""
    if frozen and trial.kind == "boil":
        with pytest.raises(InputError, match="boil could adapt nothing"):
            prepared(trial, Tiny(frozen=True))
        return
    algorithm, meta, context = prepared(trial, Tiny(frozen=frozen))
    if frozen:
        assert not any("query.weight" in name for name in meta)
    if not meta:
        return  # class means of a frozen encoder
    task = TASKS_OF[trial.task]
    tasks = [episode(task, seed=seed, query=16) for seed in (0, 1)]
    alone = [algorithm.meta_gradient(meta, one, context) for one in tasks]
    together = algorithm.meta_gradient(meta, stacked(tasks), context.with_batched(True))
    close(together.outcome.loss, torch.cat([one.outcome.loss for one in alone]), tolerance=TOLERANCE)
    for name in meta:
        close(together.gradient[name], alone[0].gradient[name] + alone[1].gradient[name], tolerance=TOLERANCE)


@pytest.mark.parametrize("kind", ["maml", "anil", "protonet", "proto_maml", "r2d2", "meta_sgd"])
def test_encoders_slopes(kind: str) -> None:
    """The meta-gradient along a random direction is the difference quotient of the loss: to second order."""
    algorithm, meta, context = prepared(Trial(kind, "classification", "inductive"), Tiny())
    task, generator = episode(Classification()), torch.Generator().manual_seed(3)
    found = algorithm.meta_gradient(meta, task, context).gradient
    along = {n: torch.randn(t.shape, generator=generator, dtype=torch.float64) for n, t in meta.items()}
    step = 1e-6

    def loss(sign: float) -> Tensor:
        moved = {name: (tensor + sign * step * along[name]).detach() for name, tensor in meta.items()}
        return algorithm.loss(moved, task, context).loss.detach()

    slope = (loss(1) - loss(-1)) / (2 * step)
    expected = sum((found[name] * along[name]).sum() for name in meta)
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-7)
