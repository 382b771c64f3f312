"""What adapts by patterns, and what comes out of it: ANIL, biases alone, contexts."""

import re
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms import ALGORITHMS, ANIL, CAVIA, FOMAML, MAML, Algorithm, Baseline, Reptile
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.task_shape import TaskShape
from metaray.data.ragged import FeatureShape
from metaray.episodes.tensors import TensorEpisode
from metaray.errors import InputError
from metaray.models import MLP, Model
from metaray.models.conv4 import Conv4
from tests.conformance.bench import Bench, Trial, close

PROBLEM = TaskShape((1, 2, 2), 3)
KINDS = [kind for kind, cls in ALGORITHMS.items() if "adapts" in cls.model_fields]


def prepared(
    algorithm: Algorithm, model: Model, problem: TaskShape = PROBLEM, dtype: torch.dtype = torch.float32
) -> tuple[Tensors, Context]:
    network, meta = start(algorithm, model, problem, seed=1)
    context = Context(network=network.to(dtype), ways=3, training=True)
    return {name: tensor.to(dtype).requires_grad_() for name, tensor in meta.items()}, context


@pytest.mark.parametrize("protocol", ["inductive", "transductive"])
@pytest.mark.parametrize("model", [MLP(hidden=(6, 5)), Conv4(channels=3, downsample="stride")], ids=str)
@pytest.mark.parametrize("size", [None, 2])
def test_maml_whose_head_adapts_is_anil_to_the_bit(protocol: str, model: Model, size: int | None) -> None:
    fields = {"inner_lr": 0.5, "inner_steps": 3, "batch_norm": protocol}
    anil = ANIL.parse(fields, where="anil")
    maml = MAML.parse({**fields, "adapts": ("head.*",)}, where="maml")
    bench = Bench(Trial("anil", "classification", protocol), model=model, feature=(1, 16, 16), dtype=torch.float32)
    episode, context = bench.episode(size=size, dtype=torch.float32), bench.context.with_batched(size is not None)
    one, other = (each.meta_gradient(bench.meta, episode, context) for each in (anil, maml))
    assert torch.equal(one.outcome.loss, other.outcome.loss)
    assert all(torch.equal(one.gradient[name], other.gradient[name]) for name in bench.meta)
    assert any(float(gradient.abs().max()) > 0 for name, gradient in one.gradient.items() if name.startswith("body"))


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_adapts_is_what_was_there_before(kind: str) -> None:
    """By default nothing of it is written, so that what was written before means the same."""
    assert ALGORITHMS[kind]().model_dump()["adapts"] == ("*",)
    assert "adapts" in ALGORITHMS[kind].left_out_of_json  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("anil", "boil", "baseline")])
def test_biases_alone(kind: str) -> None:
    """They are what a task changes; weights are meta-learned, and stay."""
    bench = Bench(
        Trial(kind, "classification", "inductive"),
        model=MLP(hidden=(6, 5), batch_norm=False),
        settings={"adapts": ["*.bias"]},
    )
    adapted = bench.algorithm.adapt(bench.meta, bench.episode().support, bench.context)
    own = {name for name, _ in bench.context.network.named_parameters()}
    for name in own:
        moved = not torch.equal(adapted[name], bench.meta[name])
        assert moved == name.endswith("bias"), name
    gradient = bench.algorithm.meta_gradient(bench.meta, bench.episode(), bench.context).gradient
    assert all(float(gradient[name].abs().max()) > 0 for name in own)
    rated = {name.removeprefix("inner_lr:") for name in bench.meta if name.startswith("inner_lr:")}
    assert rated in (set(), {name for name in own if name.endswith("bias")})


def test_baseline_fine_tunes_what_adapts() -> None:
    trial = Trial("baseline", "regression", "inductive")
    bench = Bench(trial, settings={"adapts": ["head.*"], "inner_steps": 3}, training=False)
    adapted = bench.algorithm.adapt(bench.meta, bench.episode().support, bench.context)
    assert all(torch.equal(adapted[name], bench.meta[name]) != name.startswith("head") for name in bench.meta)
    with pytest.raises(InputError, match=r"fine-tunes a new head alone .* adapts 'head\.\*' would do nothing"):
        start(Baseline(adapts=("head.*",)), MLP(), TaskShape((1, 2, 2), 3, classes=5), seed=0)


def test_of_the_head_and_of_the_body() -> None:
    for kind, pattern in (("anil", "*.bias"), ("boil", "*.weight")):
        bench = Bench(Trial(kind, "classification", "inductive"), settings={"adapts": [pattern]})
        adapted = bench.algorithm.adapt(bench.meta, bench.episode().support, bench.context)
        moved = {name for name in bench.meta if not torch.equal(adapted[name], bench.meta[name])}
        own = {name for name in bench.meta if name.startswith("head") == (kind == "anil")}
        assert moved and moved <= {name for name in own if name.endswith(pattern[1:])}


class Told(Model):
    """A linear network that is told a context, beside its input, at its first layer; see `CAVIA`."""

    kind: ClassVar[str] = "told"
    size: int = 4

    def build(self, feature_shape: FeatureShape, outputs: int | None) -> nn.Module:
        return _Told(self.size, outputs or 1)


class _Told(nn.Module):
    def __init__(self, size: int, outputs: int) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, outputs)
        self.entrance, self.context = nn.Linear(size, 6, bias=False), nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head((self.first(x.flatten(1)) + self.entrance(self.context)).tanh())
        return found


class Untold(Told):
    """The same without a context, for CAVIA to bring."""

    kind: ClassVar[str] = "untold"

    def build(self, feature_shape: FeatureShape, outputs: int | None) -> nn.Module:
        network = _Told(self.size, outputs or 1)
        network.entrance.requires_grad_(False).weight.data.zero_()
        network.context.requires_grad_(False)
        return network


def test_a_context_that_adapts_is_cavia(make_episode: Callable[..., TensorEpisode]) -> None:
    maml, cavia = (
        MAML(inner_lr=0.5, inner_steps=2, adapts=("context",)),
        CAVIA(inner_lr=0.5, inner_steps=2, context_size=4, layer="first"),
    )
    mine, context = prepared(maml, Told(), dtype=torch.float64)
    theirs, other = prepared(cavia, Untold(), dtype=torch.float64)
    shared = [name for name in theirs if name in mine]
    theirs = {name: mine[name] if name in mine else mine["entrance.weight"] for name in theirs}
    episode = make_episode()
    one, two = maml.meta_gradient(mine, episode, context), cavia.meta_gradient(theirs, episode, other)
    close(one.outcome.loss, two.outcome.loss)
    close(maml.adapt(mine, episode.support, context)["context"], cavia.adapt(theirs, episode.support, other)["context"])
    for name in shared:
        close(one.gradient[name], two.gradient[name])
    close(one.gradient["entrance.weight"], two.gradient["modulation:first:shift"])


@pytest.mark.parametrize(
    ("adapts", "expected"),
    [
        (("haed.*",), "adapts 'haed.*' fits no parameter that could adapt. Near it are head."),
        (("head.*", "*.lora_*"), "adapts '*.lora_*' fits no parameter that could adapt."),
        (("entrance.*",), "adapts 'entrance.*' fits frozen parameters of the network alone: entrance.weight."),
    ],
)
@pytest.mark.parametrize("kind", ["maml", "fomaml", "reptile", "meta_sgd", "mamlpp", "imaml", "proto_maml"])
def test_a_pattern_of_nothing(kind: str, adapts: tuple[str, ...], expected: str) -> None:
    algorithm = ALGORITHMS[kind].parse({"adapts": adapts}, where=kind)
    with pytest.raises(InputError, match=re.escape(expected)):
        start(algorithm, Untold(), PROBLEM, seed=1)


@pytest.mark.parametrize("adapts", [(), ("",), 3])
def test_no_patterns(adapts: Any) -> None:
    with pytest.raises(InputError, match="adapts"):
        MAML.parse({"adapts": adapts}, where="maml")


def test_one_pattern_alone() -> None:
    assert MAML.parse({"adapts": "head.*"}, where="maml").adapts == ("head.*",)


def test_rates_are_of_what_adapts() -> None:
    meta, context = prepared(MAML(), MLP(hidden=(6,)))
    episode = Bench(Trial("maml", "classification", "inductive"), model=MLP(hidden=(6,))).episode(dtype=torch.float32)
    algorithm = MAML(adapts=("head.*",), inner_lr={"head.weight": 0.0, "*": 0.5})
    adapted = algorithm.adapt(meta, episode.support, context)
    moved = {name for name in meta if not torch.equal(adapted[name], meta[name])}
    assert moved == {"head.bias"}
    with pytest.raises(InputError, match="inner_lr pattern 'body.*' fits no parameter"):
        MAML(adapts=("head.*",), inner_lr={"body.*": 0.1, "*": 0.5}).adapt(meta, episode.support, context)


def test_reptile_and_fomaml_give_the_rest_the_same_gradient() -> None:
    """Of Reptile on all of the data, by one plain step, and FOMAML with all of it as support and query."""
    bench = Bench(Trial("reptile", "classification", "transductive"), model=MLP(hidden=(6,), batch_norm=False))
    episode = bench.episode()
    both = type(episode.support)(
        torch.cat([episode.support.x, episode.query.x]), torch.cat([episode.support.y, episode.query.y])
    )
    settings: dict[str, Any] = {"inner_lr": 0.3, "inner_steps": 1, "adapts": ("head.*",), "batch_norm": "transductive"}
    reptile = Reptile.parse({**settings, "inner_optimizer": "sgd", "batch_size": None}, where="reptile")
    fomaml = FOMAML.parse(settings, where="fomaml")
    one = reptile.meta_gradient(bench.meta, episode, bench.context)
    other = fomaml.meta_gradient(bench.meta, episode._replace(support=both, query=both), bench.context)
    close(one.outcome.loss, other.outcome.loss)
    for name in bench.meta:
        if name.startswith("body"):
            close(one.gradient[name], other.gradient[name])
