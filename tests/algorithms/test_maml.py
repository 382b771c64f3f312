"""MAML against closed forms; tests/conformance has the finite differences."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms import MAML
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.inner_loop import STATISTICS
from metaray.algorithms.families.inner_lr import Schedule
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.errors import InputError
from metaray.models import MLP
from metaray.models.model import build_seeded

MakeEpisode = Callable[..., TensorEpisode]


class Weight(nn.Module):
    """One weight, which is also the output."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.w * torch.ones_like(x)


@pytest.fixture
def squared(monkeypatch: pytest.MonkeyPatch) -> None:
    """L(w) = w^2 in the place of cross-entropy, for inner and outer loop alike."""
    monkeypatch.setattr(nn.functional, "cross_entropy", lambda logits, y: logits.square().mean())


def gradient_of_square(algorithm: MAML, w: float, *, size: int | None = None, step: int = 0) -> float:
    lead = () if size is None else (size,)
    side = Examples(torch.zeros(*lead, 2, 1, dtype=torch.float64), torch.zeros(*lead, 2, dtype=torch.int64))
    episode = TensorEpisode(side, side, torch.zeros(lead), torch.zeros(*lead, 2))
    context = Context(network=Weight(), ways=2, step=step, training=True, batched=size is not None)
    meta = {"w": torch.tensor(w, dtype=torch.float64, requires_grad=True)}
    found = algorithm.meta_gradient(meta, episode, context)
    assert found.outcome.loss.shape == (size or 1,) and not found.outcome.loss.requires_grad
    return float(found.gradient["w"])


@pytest.mark.usefixtures("squared")
@pytest.mark.parametrize("size", [None, 1, 4])
@pytest.mark.parametrize("steps", [0, 1, 2, 5])
@pytest.mark.parametrize("a", [0.0, 0.1, 0.4, 0.75])
def test_meta_gradient_of_a_square(a: float, steps: int, size: int | None) -> None:
    w, episodes = 1.7, size or 1
    second = gradient_of_square(MAML(inner_lr=a, inner_steps=steps), w, size=size)
    first = gradient_of_square(MAML(inner_lr=a, inner_steps=steps, second_order=False), w, size=size)
    assert second == pytest.approx(episodes * 2 * w * (1 - 2 * a) ** (2 * steps), rel=1e-12)
    assert first == pytest.approx(episodes * 2 * w * (1 - 2 * a) ** steps, rel=1e-12)


@pytest.mark.usefixtures("squared")
@pytest.mark.parametrize(("step", "a"), [(0, 0.4), (9, 0.4), (10, 0.1), (25, 0.2)])
def test_meta_gradient_with_a_schedule(step: int, a: float) -> None:
    algorithm = MAML(inner_lr=Schedule(steps=(0, 10, 20), values=(0.4, 0.1, 0.2)))
    assert gradient_of_square(algorithm, 1.7, step=step) == pytest.approx(2 * 1.7 * (1 - 2 * a) ** 2, rel=1e-12)


def bench(make_episode: MakeEpisode, *, batch_norm: bool = False) -> tuple[Context, Tensors, TensorEpisode]:
    network = build_seeded(MLP(hidden=(6,), batch_norm=batch_norm), (1, 2, 2), 3, seed=1).double()
    meta = {name: t.requires_grad_() for name, t in MAML().init(network, TaskShape()).items()}
    return Context(network=network, ways=3, training=True), meta, make_episode()


def test_one_inner_step_by_hand(make_episode: MakeEpisode) -> None:
    context, meta, episode = bench(make_episode)
    adapted = MAML(inner_lr=0.3).adapt(meta, episode.support, context)
    logits = torch.func.functional_call(context.network, meta, (episode.support.x,))
    loss = nn.functional.cross_entropy(logits, episode.support.y)
    gradients = torch.autograd.grad(loss, list(meta.values()))
    for (name, value), gradient in zip(meta.items(), gradients, strict=True):
        torch.testing.assert_close(adapted[name], value - 0.3 * gradient)


@pytest.mark.parametrize("training", [True, False])
def test_no_inner_steps_change_nothing(training: bool, make_episode: MakeEpisode) -> None:
    context, meta, episode = bench(make_episode, batch_norm=True)
    for algorithm, override in (
        (MAML(inner_steps=0, batch_norm="transductive"), None),
        (MAML(inner_steps=3, batch_norm="transductive"), 0),
    ):
        given = replace(context, training=training, inner_steps=override)
        adapted = algorithm.adapt(meta, episode.support, given)
        assert adapted.keys() == meta.keys()
        assert all(torch.equal(adapted[name], meta[name]) for name in meta)
        expected = context.forward(meta, episode.query.x)
        assert torch.equal(algorithm.predict(meta, adapted, episode.query.x, given), expected)


def test_the_context_decides_the_number_of_steps(make_episode: MakeEpisode) -> None:
    context, meta, episode = bench(make_episode)
    three = MAML(inner_lr=0.2, inner_steps=3).adapt(meta, episode.support, context)
    other = MAML(inner_lr=0.2, inner_steps=1).adapt(meta, episode.support, replace(context, inner_steps=3))
    assert all(torch.equal(three[name], other[name]) for name in three)


def test_adaptation_is_the_same_in_training_and_evaluation(make_episode: MakeEpisode) -> None:
    context, meta, episode = bench(make_episode, batch_norm=True)
    algorithm = MAML(inner_lr=0.2, inner_steps=3, batch_norm="inductive")
    training = algorithm.adapt(meta, episode.support, context)
    with torch.no_grad():
        judging = algorithm.adapt(meta, episode.support, replace(context, training=False))
    assert training.keys() == judging.keys()
    for name in training:
        torch.testing.assert_close(training[name].detach(), judging[name], rtol=1e-12, atol=1e-12)
        assert not judging[name].requires_grad


def test_adapting_lowers_the_support_loss(make_episode: MakeEpisode) -> None:
    context, meta, episode = bench(make_episode)
    adapted = MAML(inner_lr=0.1, inner_steps=20).adapt(meta, episode.support, context)
    before, after = (
        float(nn.functional.cross_entropy(context.forward(theta, episode.support.x), episode.support.y).detach())
        for theta in (meta, adapted)
    )
    assert after < 0.9 * before


def test_second_order_differs_from_first(make_episode: MakeEpisode) -> None:
    context, meta, episode = bench(make_episode)
    second, first = (
        MAML(inner_lr=0.4, second_order=flag).meta_gradient(meta, episode, context) for flag in (True, False)
    )
    assert torch.equal(second.outcome.loss, first.outcome.loss)
    for name in meta:
        assert not torch.allclose(second.gradient[name], first.gradient[name], rtol=1e-3)


def test_first_order_is_the_query_gradient_at_the_adapted_weights(make_episode: MakeEpisode) -> None:
    context, meta, episode = bench(make_episode, batch_norm=True)
    algorithm = MAML(inner_lr=0.4, inner_steps=2, second_order=False, batch_norm="transductive")
    gradient = algorithm.meta_gradient(meta, episode, context).gradient
    theta = {n: t.detach().requires_grad_() for n, t in algorithm.adapt(meta, episode.support, context).items()}
    loss = nn.functional.cross_entropy(context.forward(theta, episode.query.x), episode.query.y)
    for name, expected in zip(theta, torch.autograd.grad(loss, list(theta.values())), strict=True):
        torch.testing.assert_close(gradient[name], expected)


def test_rates_by_pattern(make_episode: MakeEpisode) -> None:
    context, meta, episode = bench(make_episode)
    body_frozen = MAML(inner_lr={"body.*": 0.0, "head.*": 0.5}).adapt(meta, episode.support, context)
    everything = MAML(inner_lr=0.5).adapt(meta, episode.support, context)
    for name in meta:
        assert torch.equal(body_frozen[name], (meta if name.startswith("body") else everything)[name])


def test_a_pattern_that_fits_nothing(make_episode: MakeEpisode) -> None:
    context, meta, episode = bench(make_episode)
    with pytest.raises(InputError, match=r"'haed\.\*' fits no parameter"):
        MAML(inner_lr={"haed.*": 0.1, "*": 0.1}).adapt(meta, episode.support, context)


def test_inductive_adaptation_carries_the_support_statistics(make_episode: MakeEpisode) -> None:
    context, meta, episode = bench(make_episode, batch_norm=True)
    adapted = MAML(batch_norm="inductive").adapt(meta, episode.support, context)
    names = {name for name in adapted if name.startswith(STATISTICS)}
    assert names == {f"{STATISTICS}body.2.mean", f"{STATISTICS}body.2.variance"}
    theta = {name: value for name, value in adapted.items() if name not in names}
    features = context.network.get_submodule("body.0")(episode.support.x)
    linear = features @ theta["body.1.weight"].T + theta["body.1.bias"]
    torch.testing.assert_close(adapted[f"{STATISTICS}body.2.mean"], linear.mean(0))


def test_hyperparameters_out_of_range() -> None:
    with pytest.raises(InputError, match=r"maml: inner_lr: .*greater than or equal to 0 \(got -0\.1\)"):
        MAML.parse({"inner_lr": -0.1}, where="maml")
    with pytest.raises(InputError, match=r"inner_steps: .*\(got -1\)"):
        MAML.parse({"inner_steps": -1}, where="maml")
    with pytest.raises(InputError, match=r"inner_lr.*finite"):
        MAML.parse({"inner_lr": float("nan")}, where="maml")
