"""The end of a network alone adapts: what comes before is computed once, and nothing else changes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from metaray.algorithms import ANIL, MAML
from metaray.algorithms.context import Context
from metaray.algorithms.families.last_layer import last_layer
from metaray.episodes.tensors import TensorEpisode
from metaray.models.batch_norm import EpisodicBatchNorm, Protocol

MakeEpisode = Callable[..., TensorEpisode]
SIZE, WAYS = 4, 3


class Plain(nn.Module):
    """A body with batch norm, and a head of two modules."""

    def __init__(self, head: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(SIZE, 5), EpisodicBatchNorm(5), nn.Tanh())
        self.head = head or nn.Sequential(nn.Identity(), nn.Linear(5, WAYS))
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        found: Tensor = self.head(self.body(x))
        return found


class Twice(Plain):
    def forward(self, x: Tensor) -> Tensor:
        first = self.head(self.body(x))
        found: Tensor = self.head(first[:, :1].expand(-1, 5))
        return found


class NotLast(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class ByKeyword(Plain):
    def __init__(self) -> None:
        super().__init__(nn.Linear(5, WAYS))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(input=self.body(x))
        return found


class UsedBefore(Plain):
    """The head's weights also stand in front of it."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(5, WAYS))

    def forward(self, x: Tensor) -> Tensor:
        features, weight = self.body(x), self.head.weight
        assert isinstance(weight, Tensor)
        found: Tensor = self.head(features + functional.linear(features, weight) @ weight)
        return found


class Normalised(Plain):
    def __init__(self) -> None:
        super().__init__(nn.Sequential(EpisodicBatchNorm(5), nn.Linear(5, WAYS)))


class TwoModules(Plain):
    """The head is two modules, which no module calls."""

    def __init__(self) -> None:
        super().__init__(nn.ModuleDict({"weights": nn.Linear(5, WAYS), "scale": nn.Linear(WAYS, WAYS)}))

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.head, nn.ModuleDict)
        found: Tensor = self.head["scale"](self.head["weights"](self.body(x)))
        return found


class ChangedInPlace(Plain):
    """What comes back is what the head gave, with other numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mul_(3.0)


class AddedInPlace(Plain):
    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        found: Tensor = self.head(features)
        found += features[:, :WAYS]
        return found


class WritesInPlace(Plain):
    """The head writes to what the body gave."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.LeakyReLU(2.0, inplace=True), nn.Linear(5, WAYS)))
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(SIZE, 5))


class Borrower(nn.Module):
    """Uses parameters of a module that is none of its own."""

    def __init__(self, lender: nn.Linear) -> None:
        super().__init__()
        self.linear, self.lenders = nn.Linear(5, WAYS), [lender]

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(x) * self.lenders[0].bias.sum()
        return found


class Borrows(Plain):
    def __init__(self) -> None:
        super().__init__()
        lender = self.body[1]
        assert isinstance(lender, nn.Linear)
        self.head = Borrower(lender)


class Drops(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.body.append(nn.Dropout(0.5))


class DropsInHead(Plain):
    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Dropout(0.5), nn.Linear(5, WAYS)))


class Hooked(Plain):
    """Hooks of the user's change what goes into the head, and what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.head.register_forward_pre_hook(lambda _, args: (2 * args[0],))
        self.head.register_forward_hook(lambda _, __, output: 3 * output)


KEEPING: tuple[Callable[[], Plain], ...] = (Plain, Hooked)
NETWORKS: tuple[Callable[[], Plain], ...] = (
    *KEEPING,
    Twice,
    NotLast,
    ByKeyword,
    UsedBefore,
    Normalised,
    TwoModules,
    ChangedInPlace,
    AddedInPlace,
    WritesInPlace,
    Borrows,
    Drops,
    DropsInHead,
)


def setting(make: Callable[[], Plain], *, batched: bool = False) -> tuple[dict[str, Tensor], Context, Plain]:
    torch.manual_seed(0)
    network = make().double()
    meta = {name: parameter.detach().clone().requires_grad_() for name, parameter in network.named_parameters()}
    return meta, Context(network, WAYS, training=True, batched=batched), network


@pytest.mark.parametrize("protocol", ["inductive", "transductive"])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("make", NETWORKS)
def test_the_gradient_is_that_of_a_body_without_a_rate(
    make: Callable[[], Plain], batched: bool, protocol: Protocol, make_episode: MakeEpisode
) -> None:
    meta, context, _ = setting(make, batched=batched)
    anil = ANIL(inner_lr=0.5, inner_steps=3, batch_norm=protocol)
    maml = MAML(inner_lr={"*": 0.0, "head.*": 0.5}, inner_steps=3, batch_norm=protocol)
    chunk = make_episode(size=2) if batched else make_episode()
    results = []
    for algorithm in (anil, maml):
        torch.manual_seed(1)
        results.append(algorithm.meta_gradient(meta, chunk, context))
    one, other = results
    torch.testing.assert_close(one.outcome.loss, other.outcome.loss, rtol=1e-12, atol=0)
    for name in meta:
        torch.testing.assert_close(one.gradient[name], other.gradient[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("protocol", ["inductive", "transductive"])
@pytest.mark.parametrize("training", [False, True])
def test_the_body_sees_the_support_once(training: bool, protocol: Protocol, make_episode: MakeEpisode) -> None:
    meta, _, network = setting(Plain)
    context = Context(network, WAYS, training=training)
    ANIL(inner_steps=5, batch_norm=protocol).adapt(meta, make_episode().support, context)
    assert network.seen == 1


@pytest.mark.parametrize("make", NETWORKS)
def test_what_cannot_be_kept_is_not(make: Callable[[], Plain], make_episode: MakeEpisode) -> None:
    meta, context, network = setting(make)
    moving = [name for name in meta if name.startswith("head.")]
    found = last_layer(meta, moving, make_episode().support, context, "transductive")
    assert (found is not None) == (make in KEEPING)
    own = 1 if make is Hooked else 0
    assert len(network.head._forward_hooks) == len(network.head._forward_pre_hooks) == own
