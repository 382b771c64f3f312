"""MetaOptNet's support vector machine: margins, gradients, degenerate support sets."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms import MetaOptNetSVM
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.errors import InputError
from metaray.models import MLP

MakeEpisode = Callable[..., TensorEpisode]

SCALE = {"svm:scale": torch.tensor(1.0)}


def on_vectors(algorithm: MetaOptNetSVM, support: Examples, x: Tensor, *, ways: int) -> Tensor:
    """Logits where the network is the identity."""
    context = Context(network=nn.Identity(), ways=ways)
    return algorithm.predict(SCALE, algorithm.adapt(SCALE, support, context), x, context)


def primal(w: Tensor, x: Tensor, y: Tensor, c: float) -> Tensor:
    """1/2 sum_k |w_k|^2 + C sum_i max_k (<w_k, f_i> + 1[k != y_i]) - <w_{y_i}, f_i>, for each w [..., E, N]."""
    scores = x @ w
    rival = (scores + 1 - nn.functional.one_hot(y, w.shape[-1])).amax(dim=-1)
    own = scores.gather(-1, y[:, None].expand(*scores.shape[:-1], 1))[..., 0]
    return 0.5 * w.square().sum(dim=(-2, -1)) + c * (rival - own).sum(dim=-1)


@pytest.mark.parametrize("c", [0.05, 0.5, 5.0])
def test_minimises_the_machines_primal(c: float) -> None:
    # The primal is convex: a point that is better than all near it is best.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 4, generator=generator)
    y = torch.tensor([0, 0, 1, 1, 1, 2, 2])
    algorithm = MetaOptNetSVM(regularizer=c, ridge=1e-9, iterations=30, batch_norm="inductive")
    w = on_vectors(algorithm, Examples(x, y), torch.eye(4), ways=3).double()
    directions = torch.randn(2000, 4, 3, generator=generator, dtype=torch.float64)
    lengths = torch.logspace(-3, 0, 2000, dtype=torch.float64)[:, None, None]
    best, others = primal(w, x.double(), y, c), primal(w + lengths * directions, x.double(), y, c)
    assert float(best) < float(others.min())
    assert float(best) < float(primal(torch.zeros_like(w), x.double(), y, c))


def test_two_points_are_separated_in_the_middle() -> None:
    support = Examples(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 1]))
    algorithm = MetaOptNetSVM(regularizer=100.0, ridge=1e-6, batch_norm="inductive")
    logits = on_vectors(algorithm, support, torch.tensor([[1.0, 5.0], [-1.0, 0.0], [0.0, 1.0]]), ways=2)
    torch.testing.assert_close(logits[:, 0] - logits[:, 1], torch.tensor([1.0, -1.0, 0.0]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("regularizer", [1e-6, 0.1, 1e4])
@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 0, 0, 0, 1, 2], [0, 0, 1, 1, 2, 2]])
@pytest.mark.parametrize("same", [False, True])
def test_degenerate_support_sets_stay_finite(
    labels: list[int], regularizer: float, same: bool, make_episode: MakeEpisode
) -> None:
    algorithm, context, meta = bench(MetaOptNetSVM(regularizer=regularizer, batch_norm="inductive"))
    x = torch.randn(len(labels), 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    support = Examples(x[:1].expand(x.shape).clone() if same else x, torch.tensor(labels))
    episode = make_episode()._replace(support=support)
    found = algorithm.meta_gradient(meta, episode, context)
    assert found.outcome.loss.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in found.gradient.values())


def bench(algorithm: MetaOptNetSVM) -> tuple[MetaOptNetSVM, Context, Tensors]:
    network, meta = start(algorithm, MLP(hidden=(6,), batch_norm=False), TaskShape((1, 2, 2), 3), seed=1)
    context = Context(network=network.double(), ways=3, training=True)
    return algorithm, context, {name: tensor.double().requires_grad_() for name, tensor in meta.items()}


def test_scale_multiplies_the_logits(make_episode: MakeEpisode) -> None:
    algorithm, context, meta = bench(MetaOptNetSVM(initial_scale=3.0))
    episode = make_episode()
    adapted = algorithm.adapt(meta, episode.support, context)
    three, one = (
        algorithm.predict({**meta, "svm:scale": torch.tensor(scale)}, adapted, episode.query.x, context)
        for scale in (3.0, 1.0)
    )
    torch.testing.assert_close(three, 3 * one)
    torch.testing.assert_close(algorithm.predict(meta, adapted, episode.query.x, context), three)


def test_ways_are_free_and_wrong_fields_are_refused() -> None:
    assert MetaOptNetSVM().outputs(TaskShape(ways=7)) is None and MetaOptNetSVM.needs_classes
    for field in ("regularizer", "ridge", "iterations", "initial_scale"):
        with pytest.raises(InputError, match=rf"{field}: .*\(got 0\)"):
            MetaOptNetSVM.parse({field: 0}, where="algorithm")
