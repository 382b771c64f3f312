"""Trials of every entry of ALGORITHMS: hyperparameters that make them quick, tiny networks, random episodes.

The conformance suite and the checks on a GPU share them.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from metaray.algorithms import ALGORITHMS, Algorithm
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.models import MLP, Model
from metaray.tasks import TASK_KINDS

CPU = torch.device("cpu")
FEATURE = (1, 2, 2)
PROTOCOLS = ("transductive", "inductive")

SETTINGS: dict[str, dict[str, Any]] = {
    "baseline": {"inner_steps": 5},
    "baselinepp": {"inner_steps": 5},
    "cavia": {"context_size": 4},
    "cnp": {"encoder": [5], "representation": 4, "decoder": [5]},
    "imaml": {"inner_steps": 3, "cg_steps": 3},
    "learned_optimizer": {"inner_steps": 2, "hidden": 4},
    "mamlpp": {"inner_steps": 2},
    "reptile": {"inner_steps": 3, "eval_steps": 3},
}
"""Hyperparameters that make a kind quick to test; others are tested with their defaults."""


class Trial(NamedTuple):
    """One algorithm under one protocol, with tasks of one kind to learn."""

    kind: str
    task: str
    protocol: str


def has_parameters(kind: str) -> bool:
    """Whether an algorithm has meta-parameters, so that there is something to train."""
    return bool(start(ALGORITHMS[kind](), MLP(hidden=(2,)), TaskShape((1,), 2, classes=2), seed=0)[1])


TRAINED = [kind for kind in ALGORITHMS if has_parameters(kind)]


class Bench:
    """An algorithm with a network and meta-parameters for it.

    Args:
        trial: of which algorithm.
        ways: classes of a task, where it has classes.
        target_size: values of a target, where a task is regression.
        model: the network's; by default a tiny MLP.
        feature: shape of one input.
        dtype: of weights and inputs; the weights start as the same float32 numbers in each.
        device: where they are.
        training: whether the context is one of training.
        settings: hyperparameters besides SETTINGS.
    """

    def __init__(
        self,
        trial: Trial,
        *,
        ways: int = 3,
        target_size: int = 1,
        model: Model | None = None,
        feature: tuple[int, ...] = FEATURE,
        dtype: torch.dtype = torch.float64,
        device: torch.device = CPU,
        training: bool = True,
        settings: dict[str, Any] | None = None,
    ) -> None:
        chosen = {"batch_norm": trial.protocol, **SETTINGS.get(trial.kind, {}), **(settings or {})}
        self.algorithm: Algorithm = ALGORITHMS[trial.kind].parse(chosen, where=trial.kind)
        fields = {"target_size": target_size} if trial.task == "regression" else {}
        task = TASK_KINDS[trial.task].parse(fields, where=trial.task)
        own = task.labels_vary
        self.task_shape = TaskShape(feature, ways if own else 1, task, ways + 2 if own else 0)
        network, meta = start(self.algorithm, model or MLP(hidden=(6, 5)), self.task_shape, seed=1)
        network.to(device, dtype)
        self.meta = {name: t.to(device, dtype).requires_grad_() for name, t in meta.items()}
        self.context = Context(network=network, ways=task.labels(self.task_shape.ways), training=training, task=task)

    def output(self, support: Examples, x: Tensor) -> Tensor:
        """Logits or values of the queries x."""
        adapted = self.algorithm.adapt(self.meta, support, self.context)
        return self.algorithm.predict(self.meta, adapted, x, self.context)

    def episode(
        self, *, shots: int = 2, queries: int = 2, size: int | None = None, dtype: torch.dtype = torch.float64
    ) -> TensorEpisode:
        """A random task; with `size`, a chunk of so many. Regression: as many examples as three classes would have."""
        generator = torch.Generator().manual_seed(0)
        lead = () if size is None else (size,)
        task, ways = self.task_shape.task, self.context.ways

        def side(each: int) -> Examples:
            count = ways * each if task.has_classes else 3 * each
            x = torch.randn(*lead, count, *self.task_shape.feature_shape, generator=generator, dtype=dtype)
            if task.has_classes:
                return Examples(x, torch.arange(ways).repeat_interleave(each).expand(*lead, count).clone())
            return Examples(x, torch.randn(*lead, count, task.outputs(1), generator=generator, dtype=dtype))

        classes = torch.arange(1, self.task_shape.ways + 1).expand(*lead, self.task_shape.ways).clone()
        return TensorEpisode(side(shots), side(queries), torch.arange(size or 1).view(lead), classes)


def episode_of(chunk: TensorEpisode, i: int) -> TensorEpisode:
    """One episode of a chunk."""
    support, query = (Examples(side.x[i], side.y[i]) for side in (chunk.support, chunk.query))
    return TensorEpisode(support, query, chunk.seed[i], chunk.classes[i])


def moved(episode: TensorEpisode, device: torch.device, dtype: torch.dtype) -> TensorEpisode:
    """The same on a device, with inputs of a type."""
    support, query = (Examples(side.x.to(device, dtype), side.y.to(device)) for side in episode[:2])
    return TensorEpisode(support, query, episode.seed.to(device), episode.classes.to(device))
