"""LoRA: what it wraps, what it leaves as it was, and what is trained."""

import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms import MAML, InnerAdam, ProtoNet
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context
from metaray.algorithms.task_shape import TaskShape
from metaray.data.preprocessing import TextPreprocessing
from metaray.data.ragged import FeatureShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.errors import InputError
from metaray.imports import dump_kind, parse_kind
from metaray.models import MLP, MODELS, Encoder, LoRA, Model
from metaray.models.lora import WRAPPED, LoRALinear
from metaray.models.model import build_seeded, trainable
from metaray.models.state import kept
from tests.conformance.bench import Bench, Trial, close, episode_of, smoothen
from tests.models.encoders.tiny import bert_folder, tokenizer

SHAPE = (1, 2, 2)
NET = LoRA(model=MLP(hidden=(6, 5), batch_norm=False), targets=("body.*",), rank=2, alpha=4)


def test_nothing_changes_at_the_start_and_names_stay() -> None:
    network, plain = (build_seeded(model, SHAPE, 3, seed=1) for model in (NET, NET.model))
    x = torch.randn(7, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(x), plain(x))
    own, added = dict(plain.named_parameters()), dict(network.named_parameters())
    assert all(torch.equal(added[name], parameter) for name, parameter in own.items())
    factors = [f"body.{layer}.lora_{which}" for layer in (1, 3) for which in "ab"]
    assert sorted(added.keys() - own.keys()) == sorted(factors)
    assert list(trainable(network)) == [*factors, "head.weight", "head.bias"]
    assert set(kept(network)) == own.keys() - {"head.weight", "head.bias"}


def test_the_product_is_that_of_the_paper() -> None:
    network = build_seeded(NET, SHAPE, 3, seed=1)
    layer = network.get_submodule("body.3")
    assert isinstance(layer, LoRALinear)
    with torch.no_grad():
        layer.lora_b.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    weight = layer.weight + 4 / 2 * layer.lora_b @ layer.lora_a
    torch.testing.assert_close(layer(x), x @ weight.T + layer.bias)


def test_what_is_trained_besides() -> None:
    model = LoRA(model=NET.model, targets=("head",), rank=1, trained=("*.bias",))
    names = set(trainable(build_seeded(model, SHAPE, 3, seed=1)))
    assert names == {"body.1.bias", "body.3.bias", "head.bias", "head.lora_a", "head.lora_b"}
    # What the model itself has frozen stays so.
    frozen = LoRA(model=Frozen(), targets=("first",), rank=1, trained=("*",))
    assert set(trainable(build_seeded(frozen, SHAPE, 3, seed=1))) == {"first.lora_a", "first.lora_b", "head.weight"}


class Frozen(Model):
    """A network of which a layer is frozen."""

    kind: ClassVar[str] = "frozen"

    def build(self, feature_shape: FeatureShape, outputs: int | None) -> nn.Module:
        network = nn.Sequential()
        network.add_module("flat", nn.Flatten())
        network.add_module("first", nn.Linear(4, 4).requires_grad_(False))
        network.add_module("head", nn.Linear(4, outputs or 1, bias=False))
        return network


class Odd(nn.Linear):
    """A linear layer that computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).abs()


class Torchs(Model):
    """Layers of torch that compute with the weights of others, and one of a user's own."""

    kind: ClassVar[str] = "torchs"

    def build(self, feature_shape: FeatureShape, outputs: int | None) -> nn.Module:
        layer = nn.TransformerEncoderLayer(4, 1, 8, batch_first=True)
        return nn.ModuleDict({"layer": layer, "odd": Odd(4, 4), "norm": nn.LayerNorm(4), "plain": nn.Linear(4, 4)})


@pytest.mark.parametrize(
    ("model", "fields", "expected"),
    [
        (NET.model, {"targets": ("boyd.1",)}, "unknown lora target 'boyd.1'. Did you mean 'body.1'?"),
        (Torchs(), {"targets": ("norm",)}, "target 'norm' fits no linear layer, but other modules. Linear layers:"),
        (Torchs(), {"targets": ("layer.linear1",)}, "'layer.linear1' is part of torch's TransformerEncoderLayer"),
        (Torchs(), {"targets": ("*.out_proj",)}, "'layer.self_attn.out_proj' is part of torch's MultiheadAttention"),
        (Torchs(), {"targets": ("odd",)}, "'odd' is a Odd, which may compute something of its own"),
        (NET.model, {"targets": ("head",), "rank": 4}, "rank 4 is no low one for layer 'head' of 5 inputs and 3"),
        (NET.model, {"targets": ("head",), "rank": 1, "trained": ("bdoy.1.*",)}, "pattern of lora's trained"),
    ],
)
def test_what_cannot_be_wrapped(model: Model, fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=re.escape(expected)):
        build_seeded(LoRA(model=model, **fields), SHAPE, 3, seed=0)


class Named(nn.Linear):
    """A linear layer that begins otherwise, and has a method of its own."""

    def reset_parameters(self) -> None:
        nn.init.orthogonal_(self.weight)
        nn.init.zeros_(self.bias)

    def twice(self) -> Tensor:
        return 2 * self.weight


class Derived(Model):
    """A linear layer of a user's own class, and one whose weights are computed from others."""

    kind: ClassVar[str] = "derived"

    def build(self, feature_shape: FeatureShape, outputs: int | None) -> nn.Module:
        normed = nn.utils.parametrizations.weight_norm(nn.Linear(5, 4))
        return nn.Sequential(nn.Flatten(), Named(4, 5), normed)


def test_layers_derived_from_linear_ones_stay_what_they_are() -> None:
    network, plain = (
        build_seeded(model, SHAPE, None, seed=1)
        for model in (LoRA(model=Derived(), targets="*", rank=2, trained=()), Derived())
    )
    x = torch.randn(7, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(x), plain(x))
    layer = network[1]  # type: ignore[index]
    assert isinstance(layer, LoRALinear) and isinstance(layer, Named) and torch.equal(layer.twice(), 2 * layer.weight)
    assert set(trainable(network)) == {f"{i}.lora_{which}" for i in (1, 2) for which in "ab"}
    before = network(x)
    with torch.no_grad():
        network[2].lora_b.add_(1)  # type: ignore[index]
    assert not torch.equal(network(x), before)


def test_no_linear_layer_and_wrapped_twice() -> None:
    with pytest.raises(InputError, match="the model conv4 has no linear layer that 'body.\\*' could fit"):
        build_seeded(
            LoRA.parse({"model": {"kind": "conv4"}, "targets": ["body.*"]}, where=""), (1, 16, 16), None, seed=0
        )
    with pytest.raises(InputError, match="wrapped already"):
        LoRA.parse({"model": NET, "targets": ["*"]}, where="lora")


def test_every_model_can_be_wrapped_by_name() -> None:
    assert set(WRAPPED) == set(MODELS) - {"lora"}


def test_its_description_comes_back() -> None:
    written = dump_kind(NET, MODELS)
    assert written["model"]["kind"] == "mlp"
    assert parse_kind(written, MODELS, Model, what="model") == NET


@pytest.mark.parametrize("kind", ["maml", "meta_sgd", "protonet", "imaml", "reptile", "r2d2"])
def test_in_second_order_and_in_chunks(kind: str) -> None:
    settings = {"adapts": ["*.lora_*", "head.*"]} if kind in ("maml", "meta_sgd", "imaml", "reptile") else {}
    bench = Bench(Trial(kind, "classification", "inductive"), model=NET, settings=settings)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in bench.meta.items():
        if name.endswith("lora_b"):
            tensor.data.normal_(generator=generator)
    smoothen(bench.context.network)
    chunk = bench.episode(size=2)
    alone = [bench.algorithm.meta_gradient(bench.meta, episode_of(chunk, i), bench.context) for i in range(2)]
    found = bench.algorithm.meta_gradient(bench.meta, chunk, bench.context.with_batched(True))
    for name in bench.meta:
        close(found.gradient[name], alone[0].gradient[name] + alone[1].gradient[name], tolerance=1e-9)
    if kind in ("reptile", "imaml"):  # whose gradients are of no loss, or of a problem solved
        return
    episode = bench.episode()
    exact = bench.algorithm.meta_gradient(bench.meta, episode, bench.context).gradient
    along = {name: torch.randn(t.shape, generator=generator, dtype=t.dtype) for name, t in bench.meta.items()}

    def loss(length: float) -> float:
        at = {name: tensor.detach() + length * along[name] for name, tensor in bench.meta.items()}
        return float(bench.algorithm.loss(at, episode, bench.context).loss.detach())

    slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
    assert slope == pytest.approx(sum(float((exact[name] * along[name]).sum()) for name in exact), rel=1e-6)


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    return Encoder(path=bert_folder(tmp_path / "encoder"))


def test_an_encoder_is_wrapped_and_held(encoder: Encoder) -> None:
    texts = TextPreprocessing(tokenizer=tokenizer(), longest=12)
    model = LoRA(model=encoder, targets=("*.query", "*.value"), rank=2)
    shape = TaskShape((None,), 3, preprocessing=texts)
    network, meta = start(ProtoNet(), model, shape, seed=0)
    layers = encoder.architecture.layers  # type: ignore[attr-defined]
    assert len(meta) == 2 * 2 * layers and all(".lora_" in name for name in meta)
    tokens = {"tokens": torch.tensor([[2, 5, 6, 3]]), "mask": torch.ones(1, 4, dtype=torch.bool)}
    plain = build_seeded(encoder, (None,), None, seed=0, preprocessing=texts)
    assert torch.equal(network(tokens), plain(tokens))
    # A learner builds the same without the folder, and has the weights.
    held = build_seeded(model.held, (None,), None, seed=0, preprocessing=texts)
    assert set(kept(held)) == set(kept(network)) == {name for name, _ in plain.named_parameters()}
    with pytest.raises(InputError, match="encoder: it has no path"):
        model.held.check_start()


def test_adam_moves_the_factors_of_an_encoder(encoder: Encoder) -> None:
    """From zero products, in second order: finite, and what adapts is the factors and the head."""
    texts = TextPreprocessing(tokenizer=tokenizer(), longest=12)
    model = LoRA(model=encoder, targets=("*.query", "*.value"), rank=2)
    algorithm = MAML(inner_lr=0.01, inner_steps=3, adapts=("head.*", "*.lora_*"), inner_optimizer=InnerAdam())
    network, meta = start(algorithm, model, TaskShape((None,), 2, preprocessing=texts), seed=0)
    meta = {name: tensor.requires_grad_() for name, tensor in meta.items()}
    tokens = torch.randint(4, 20, (4, 5), generator=torch.Generator().manual_seed(0))
    x = {"tokens": tokens, "mask": torch.ones(4, 5, dtype=torch.bool)}
    side = Examples(x, torch.tensor([0, 1, 0, 1]))
    context = Context(network=network, ways=2, training=True)
    found = algorithm.meta_gradient(meta, TensorEpisode(side, side, torch.tensor(0), torch.arange(2)), context)
    assert all(bool(gradient.isfinite().all()) for gradient in found.gradient.values())
    adapted = algorithm.adapt(meta, side, context)
    assert all(not torch.equal(adapted[name], meta[name]) for name in meta)
