"""Residual networks and vision transformers: what they compute, and that it can be differentiated twice and mapped."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metaray.data.preprocessing import ImagePreprocessing, TextPreprocessing, VectorPreprocessing
from metaray.errors import InputError
from metaray.models import Encoder
from metaray.models.batch_norm import normalises_batches
from metaray.models.encoders import ResNet, ViT
from metaray.models.encoders.resnet import NAMED
from metaray.models.model import build_seeded, trainable
from metaray.models.state import kept
from tests.models.encoders.tiny import tokenizer
from tests.models.encoders.tiny_images import (
    DEEP,
    PREPARATION,
    RESNET,
    VIT,
    VIT_CONFIG,
    random_tensors,
    resnet_folder,
    resnet_weights,
    vit_folder,
    vit_weights,
    written,
)

IMAGES = ImagePreprocessing(height=20, width=24, mode="RGB", mean=(0.5,), std=(0.25,))


def images(n: int = 2, side: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def filled(shape: ResNet | ViT, pooling: Any, normalized: bool = False) -> nn.Module:
    network = shape.build(pooling, normalized)
    network.load_state_dict(random_tensors(network.state_dict()), assign=True)
    return network


def test_what_a_folder_of_a_residual_network_says(tmp_path: Path) -> None:
    encoder = Encoder(path=resnet_folder(tmp_path / "resnet"))
    assert encoder.architecture == RESNET and encoder.pooling == "mean" and encoder.size == 32
    assert Encoder(path=encoder.path, pooling="fc").size == 5
    again = Encoder(path=resnet_folder(tmp_path / "deep", shape=DEEP))
    assert again.architecture == DEEP and again.size == 128
    with pytest.raises(InputError, match="pooling of a resnet encoder: mean, fc \\(got 'cls'\\)"):
        Encoder.parse({"path": encoder.path, "pooling": "cls"}, where="model")
    with pytest.raises(InputError, match="the weights hold no such layer"):
        Encoder(path=again.path, pooling="fc").body()


def test_what_a_folder_of_a_vision_transformer_says(tmp_path: Path) -> None:
    encoder = Encoder(path=vit_folder(tmp_path / "vit"))
    assert encoder.architecture == VIT and encoder.pooling == "cls" and encoder.size == 8
    told = {**VIT_CONFIG, "qkv_bias": False, "image_size": [16, 32], "patch_size": 8}
    wide = ViT.read(told, {})
    assert wide is not None and (wide.patch, wide.sight.size, wide.places) == ((8, 8), (16, 32), 9)
    assert isinstance(wide.build("cls", True), nn.Module) and not wide.biased


@pytest.mark.parametrize("kind", ["resnet", "deep", "vit"])
def test_weights_are_those_of_the_file_and_frozen(kind: str, tmp_path: Path) -> None:
    shape = DEEP if kind == "deep" else RESNET
    folder = vit_folder(tmp_path / kind) if kind == "vit" else resnet_folder(tmp_path / kind, shape=shape)
    given = vit_weights() if kind == "vit" else resnet_weights(shape)
    encoder = Encoder(path=folder)
    network = build_seeded(encoder, IMAGES.feature_shape, 3, seed=0, preprocessing=IMAGES)
    assert [*trainable(network)] == ["head.weight", "head.bias"]
    for name, tensor in given.items():
        for own in encoder.architecture.own_names(name):
            if not own.startswith("fc."):
                assert torch.equal(kept(network)[f"body.{own}"], tensor)
    trained = build_seeded(Encoder(path=folder, frozen=False), IMAGES.feature_shape, 3, seed=0, preprocessing=IMAGES)
    x = IMAGES.normalize(torch.from_numpy(IMAGES.probe(4)))
    assert torch.equal(network(x), trained(x)) and network(x).shape == (4, 3)


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "trained"])
def test_batch_norms_use_their_stored_statistics(frozen: bool, tmp_path: Path) -> None:
    """In training mode too, and whatever else is in the batch: no protocol changes them."""
    body = Encoder(path=resnet_folder(tmp_path / "resnet"), frozen=frozen).body()
    x = images(4)
    alone = torch.cat([body.train()(one[None]) for one in x])
    before = {name: tensor.clone() for name, tensor in body.state_dict().items()}
    torch.testing.assert_close(body.train()(x), alone)
    assert torch.equal(body.train()(x), body.eval()(x)) and not normalises_batches(body)
    assert all(torch.equal(tensor, before[name]) for name, tensor in body.state_dict().items())


def test_a_block_by_hand() -> None:
    shape = ResNet(blocks=(1, 1, 1, 1), bottleneck=False, width=2)
    network = filled(shape, "mean").double()
    at = network.state_dict()
    x = images(2).double()

    def norm(y: Tensor, name: str) -> Tensor:
        mean, variance, scale, shift = (
            at[f"{name}.{part}"].view(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        found: Tensor = (y - mean) / (variance + 1e-5).sqrt() * scale + shift
        return found

    def conv(y: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = at[f"{name}.weight"]
        found: Tensor = nn.functional.conv2d(y, weight, stride=stride, padding=weight.shape[-1] // 2)
        return found

    y = nn.functional.max_pool2d(norm(conv(x, "conv1", 2), "bn1").relu(), 3, 2, 1)
    for layer, stride in enumerate((1, 2, 2, 2), 1):
        name = f"layer{layer}.0"
        inside = norm(conv(y, f"{name}.conv1", stride), f"{name}.bn1").relu()
        past = norm(conv(y, f"{name}.downsample.0", stride), f"{name}.downsample.1") if layer > 1 else y
        y = (norm(conv(inside, f"{name}.conv2"), f"{name}.bn2") + past).relu()
    torch.testing.assert_close(network(x), y.mean((2, 3)))


CASES = [(RESNET, "mean"), (RESNET, "fc"), (DEEP, "mean"), (VIT, "cls"), (VIT, "mean")]


@pytest.mark.parametrize(("shape", "pooling"), CASES, ids=["resnet", "fc", "deep", "vit", "vit-mean"])
def test_second_derivatives_and_chunks(shape: Any, pooling: Any) -> None:
    """Derivatives along random directions, twice, by differences; and the same mapped over weights by task."""
    network, x = filled(shape, pooling, True).double(), images().double()
    start = {name: parameter.detach() for name, parameter in network.named_parameters()}
    generator = torch.Generator().manual_seed(1)
    along = {n: torch.randn(t.shape, generator=generator, dtype=t.dtype) * t.abs().mean() for n, t in start.items()}
    goal = torch.randn(2, shape.size_of(pooling), generator=generator, dtype=torch.float64)

    def loss(weights: dict[str, Tensor], inputs: Tensor = x) -> Tensor:
        made: Tensor = torch.func.functional_call(network, weights, (inputs,))
        return (made * goal).sum() + made.pow(3).sum()

    def moved(step: float) -> dict[str, Tensor]:
        return {name: tensor + step * along[name] for name, tensor in start.items()}

    def slope(step: float) -> Tensor:
        at = {name: tensor.requires_grad_() for name, tensor in moved(step).items()}
        gradient = torch.autograd.grad(loss(at), list(at.values()), create_graph=True)
        return torch.stack([(g * along[n]).sum() for g, n in zip(gradient, at, strict=True)]).sum()

    def curvature() -> Tensor:
        at = {name: tensor.requires_grad_() for name, tensor in moved(0).items()}
        first = torch.autograd.grad(loss(at), list(at.values()), create_graph=True)
        total = torch.stack([(g * along[n]).sum() for g, n in zip(first, at, strict=True)]).sum()
        second = torch.autograd.grad(total, list(at.values()))
        return torch.stack([(g * along[n]).sum() for g, n in zip(second, at, strict=True)]).sum()

    step = 1e-6
    by_differences = (loss(moved(step)) - loss(moved(-step))) / (2 * step)
    torch.testing.assert_close(slope(0), by_differences, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(curvature(), (slope(step) - slope(-step)) / (2 * step), rtol=1e-4, atol=1e-6)

    chunk = torch.stack([x, images(seed=1).double()])
    weights = {name: torch.stack([tensor, moved(0.1)[name]]) for name, tensor in start.items()}
    together = torch.func.vmap(torch.func.grad(loss))(weights, chunk)
    for place in (0, 1):
        alone = torch.func.grad(loss)({name: tensor[place] for name, tensor in weights.items()}, chunk[place])
        for name, gradient in alone.items():
            torch.testing.assert_close(together[name][place], gradient, rtol=1e-7, atol=1e-9)


def test_torchvision_names_of_vision_transformers(tmp_path: Path) -> None:
    """Query, key and value lie there as one tensor; what the weights don't say, a config.json does."""
    theirs, given = {}, random_tensors(VIT.build("cls", True).state_dict())
    for name, tensor in given.items():
        part = name.split(".")[2] if name.startswith("layers.") else name.partition(".")[0]
        if part in ("query", "key", "value"):
            continue
        theirs[_of_torchvision(name)] = tensor
    for layer in range(VIT.layers):
        for kind in ("weight", "bias"):
            parts = [given[f"layers.{layer}.{part}.{kind}"] for part in ("query", "key", "value")]
            theirs[f"encoder.layers.encoder_layer_{layer}.self_attention.in_proj_{kind}"] = torch.cat(parts)
    theirs |= {"heads.head.weight": torch.zeros(3, 8)}
    with pytest.raises(InputError, match="heads of attention there are at a width of 8 is not known"):
        Encoder.parse({"path": written(tmp_path / "bare", theirs, None)}, where="model")
    folder = written(tmp_path / "told", theirs, {"num_attention_heads": 2, "layer_norm_eps": 1e-12})
    encoder, other = Encoder(path=folder), Encoder(path=vit_folder(tmp_path / "hf"))
    assert encoder.architecture == VIT
    ours = other.body()
    ours.load_state_dict(given)
    torch.testing.assert_close(encoder.body()(images()), ours(images()))


def _of_torchvision(name: str) -> str:
    outside = {"first": "class_token", "places": "encoder.pos_embedding", "patches": "conv_proj", "norm": "encoder.ln"}
    inside = {
        "before": "ln_1",
        "after": "ln_2",
        "wide": "mlp.0",
        "narrow": "mlp.3",
        "joined": "self_attention.out_proj",
    }
    if not name.startswith("layers."):
        part, _, kind = name.partition(".")
        return ".".join(filter(None, (outside[part], kind)))
    _, layer, part, kind = name.split(".")
    return f"encoder.layers.encoder_layer_{layer}.{inside[part]}.{kind}"


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    lacking = resnet_weights()
    lacking["layer2.0.se.weight"] = lacking.pop("layer2.0.bn2.running_var")
    encoder = Encoder(path=written(tmp_path / "other", lacking, None))
    said = r"they lack layer2.0.bn2.running_var \(1\) and hold layer2.0.se.weight \(1\), which"
    with pytest.raises(InputError, match=said):
        encoder.body()
    grouped = resnet_weights(DEEP)
    grouped["layer1.0.conv2.weight"] = torch.zeros(4, 1, 3, 3)
    with pytest.raises(InputError, match=r"layer1.0.conv2.weight has the shape \[4, 1, 3, 3\], but .* \[4, 4, 3, 3\]"):
        Encoder(path=written(tmp_path / "grouped", grouped, None)).body()
    whole = resnet_weights() | {"conv1.weight": torch.zeros(4, 3, 7, 7, dtype=torch.int32)}
    with pytest.raises(InputError, match=r"conv1.weight holds torch.int32, but conv1.weight .* has torch.float32"):
        Encoder(path=written(tmp_path / "integers", whole, None)).body()
    with pytest.raises(InputError, match=r"they lack layers.2.after.bias, .* \(16\)"):
        Encoder(path=vit_folder(tmp_path / "deeper", config={**VIT_CONFIG, "num_hidden_layers": 3})).body()
    with pytest.raises(InputError, match=r"config.json says resnet18, whose layers have \[2, 2, 2, 2\] blocks"):
        Encoder.parse({"path": resnet_folder(tmp_path / "named", config={"architecture": "resnet18"})}, where="model")
    grey = resnet_weights() | {"conv1.weight": torch.zeros(4, 1, 7, 7)}
    with pytest.raises(InputError, match="take images of 1 channels, but only encoders of 3"):
        Encoder.parse({"path": written(tmp_path / "grey", grey, None)}, where="model")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": None}, "width"),
        ({"image_size": "big"}, "image_size must be a number of pixels, or two"),
        ({"patch_size": 0}, "patch_size must be a number of pixels"),
        ({"patch_size": 17}, "hold no patch"),
        ({"num_attention_heads": 3}, "width of 8 is not divided by 3 heads"),
        ({"num_hidden_layers": 10**9}, "layers"),
        ({"hidden_size": 10**15, "num_attention_heads": 1}, "width"),
        ({"image_size": 10**9}, "height"),
        ({"num_channels": 1}, "num_channels is 1"),
        ({"hidden_act": "swish9"}, "unknown value 'swish9'"),
    ],
)
def test_absurd_configurations(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        Encoder.parse({"path": vit_folder(tmp_path / "vit", config={**VIT_CONFIG, **changes})}, where="model")


def test_configurations_that_lack_something(tmp_path: Path) -> None:
    config = {name: value for name, value in VIT_CONFIG.items() if name not in ("patch_size", "intermediate_size")}
    with pytest.raises(InputError, match="config.json lacks intermediate_size, patch_size"):
        Encoder.parse({"path": vit_folder(tmp_path / "vit", config=config)}, where="model")
    with pytest.raises(InputError, match="makes images of \\(8, 8\\) pixels, but the network takes \\(16, 16\\)"):
        Encoder.parse({"path": vit_folder(tmp_path / "two", preparation={**PREPARATION, "size": 8})}, where="model")
    with pytest.raises(InputError, match="model_type 'swin'.* architecture=OwnModule"):
        Encoder.parse({"path": vit_folder(tmp_path / "swin", config={"model_type": "swin"})}, where="model")


def test_weights_in_another_form(tmp_path: Path) -> None:
    """Pickled ones, and such in several files, are refused with the way out; nothing is opened."""
    folder = Path(resnet_folder(tmp_path / "resnet"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="but pytorch_model.bin: .*save_file\\(torch.load\\(FILE"):
        Encoder.parse({"path": str(folder)}, where="model")
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors.index.json")
    with pytest.raises(InputError, match="but model.safetensors.index.json: weights are read from one file: put"):
        Encoder.parse({"path": f"file://{folder}"}, where="model")
    for name in ("w.bin", "s3://models/w.pt", "https://a.b/w.pth?x=1"):
        with pytest.raises(InputError, match="weights are read from safetensors alone"):
            Encoder.parse({"path": name}, where="model")
    whole = Path(resnet_folder(tmp_path / "cut"), "model.safetensors")
    content = whole.read_bytes()
    for damaged in (content[:-1], content[:100], b"", content[:8], (2**62).to_bytes(8, "little") + content[8:]):
        whole.write_bytes(damaged)
        with pytest.raises(InputError, match="no whole file of safetensors"):
            Encoder.parse({"path": str(whole)}, where="model")


def test_other_inputs(tmp_path: Path) -> None:
    for encoder in (Encoder(path=resnet_folder(tmp_path / "resnet")), Encoder(path=vit_folder(tmp_path / "vit"))):
        for other in (VectorPreprocessing(size=3), TextPreprocessing(tokenizer=tokenizer())):
            with pytest.raises(InputError, match=f"takes images, but the source's preprocessing is '{other.kind}'"):
                encoder.check_inputs(other)
        encoder.check_inputs(IMAGES)


def torchvision_models() -> ModuleType:
    pytest.importorskip("torchvision", reason="the extra 'references'")
    return importlib.import_module("torchvision.models")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_it_is_torchvision(name: str, operators: None, tmp_path: Path) -> None:
    """To 1e-5 of the largest number, in evaluation mode, where torchvision is installed (the extra "references")."""
    reference = getattr(torchvision_models(), name)(weights=None).eval()
    given = random_tensors({n: t for n, t in reference.state_dict().items() if t.is_floating_point()})
    reference.load_state_dict(given, strict=False)
    folder = written(tmp_path / name, given, {"architecture": name})
    encoder = Encoder(path=folder, pooling="fc", normalized=False)
    assert isinstance(encoder.architecture, ResNet)
    assert (encoder.architecture.blocks, encoder.architecture.bottleneck) == NAMED[name]
    assert encoder.size == 1000 and Encoder(path=folder).size == reference.fc.in_features
    x = images(2, 96)
    with torch.no_grad():
        theirs, ours = reference(x), encoder.body()(x)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))
        reference.fc = nn.Identity()
        theirs, ours = reference(x), Encoder(path=folder, normalized=False).body()(x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.slow
def test_it_is_torchvisions_vision_transformer(operators: None, tmp_path: Path) -> None:
    models = torchvision_models()
    shape = {"image_size": 32, "patch_size": 8, "num_layers": 3, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 96}
    reference = models.VisionTransformer(**shape).eval()
    given = random_tensors(reference.state_dict())
    reference.load_state_dict(given)
    reference.heads = nn.Identity()
    ours, x = Encoder(path=written(tmp_path / "vit", given, None), normalized=False).body(), images(2, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), reference(x), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
def test_it_is_the_reference_vision_transformer(activation: str, operators: None, tmp_path: Path) -> None:
    """To 1e-5, where transformers are installed (the extra "references"), from the very file that they write."""
    transformers = pytest.importorskip("transformers")
    settings = transformers.ViTConfig(**{**VIT_CONFIG, "hidden_act": activation, "qkv_bias": activation == "gelu"})
    reference = transformers.ViTModel(settings, add_pooling_layer=True).eval()
    reference.load_state_dict(random_tensors(reference.state_dict()))
    reference.save_pretrained(tmp_path / "vit")
    x = images()
    with torch.no_grad():
        hidden = reference(pixel_values=x).last_hidden_state
        for pooling, theirs in (("cls", hidden[:, 0]), ("mean", hidden[:, 1:].mean(1))):
            body = Encoder(path=str(tmp_path / "vit"), pooling=pooling, normalized=False).body()
            torch.testing.assert_close(body(x), theirs, rtol=0, atol=1e-5)
