"""Text encoders of the BERT family: what they compute, and that it can be differentiated twice and mapped over."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metaray.errors import InputError
from metaray.models.encoders import Bert, Encoder, StaticWords
from metaray.models.encoders.pooling import pooled, unit
from tests.models.encoders.tiny import CONFIG, SHAPE, bert_folder, filled, their_name, weights


def batch(n: int = 3, length: int = 8, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([length, 3, 5, 1][:n])
    tokens = torch.randint(0, SHAPE.vocabulary, (n, length), generator=generator)
    mask = torch.arange(length) < lengths[:, None]
    return {"tokens": tokens * mask, "mask": mask}


def test_one_layer_by_hand() -> None:
    shape = Bert(vocabulary=5, width=2, layers=1, heads=1, wide=3, places=4)
    network = filled(shape.build("cls", False)).double()
    found = network({"tokens": torch.tensor([[3, 1]]), "mask": torch.ones(1, 2, dtype=torch.bool)})
    at = {name: tensor.detach() for name, tensor in network.named_parameters()}

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
        return scaled * at[f"{name}.weight"] + at[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ at[f"layers.0.{name}.weight"].T + at[f"layers.0.{name}.bias"]

    x = norm(at["words.weight"][[3, 1]] + at["places.weight"][:2] + at["segments.weight"][0], "norm")
    scores = linear(x, "query") @ linear(x, "key").T / math.sqrt(2)
    x = norm(x + linear(scores.softmax(-1) @ linear(x, "value"), "joined"), "layers.0.joined_norm")
    wide = linear(x, "wide")
    x = norm(x + linear(wide * (1 + torch.erf(wide / math.sqrt(2))) / 2, "narrow"), "layers.0.norm")
    torch.testing.assert_close(found, x[:1])


def test_padding_does_not_matter() -> None:
    network, x = filled(SHAPE.build("mean", True)), batch()
    longer = {name: torch.cat([part, part.new_zeros(3, 4)], 1) for name, part in x.items()}
    longer["tokens"][:, 8:] = 7
    torch.testing.assert_close(network(longer), network(x))
    assert torch.allclose(network(x).norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_second_derivatives(pooling: Any) -> None:
    network, x = filled(SHAPE.build(pooling, True)).double(), batch()
    names = ["words.weight", "layers.0.query.weight", "layers.1.norm.bias"]
    start = {name: parameter.detach() for name, parameter in network.named_parameters()}

    def function(*parts: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(network, start | dict(zip(names, parts, strict=True)), (x,))
        return found.square().sum(0)[:2] + found.sum(0)[2:4]

    parts = tuple(start[name].clone().requires_grad_() for name in names)
    assert torch.autograd.gradgradcheck(function, parts, fast_mode=True)


def test_pooling() -> None:
    vectors = torch.tensor([[[1.0, 0], [3, 4], [9, 9]]])
    mask = torch.tensor([[True, True, False]])
    assert torch.equal(pooled(vectors, mask, "mean", normalized=False), torch.tensor([[2.0, 2]]))
    assert torch.equal(pooled(vectors, mask, "cls", normalized=False), torch.tensor([[1.0, 0]]))
    assert torch.allclose(unit(torch.tensor([[3.0, 4], [0, 0]])), torch.tensor([[0.6, 0.8], [0, 0]]))


def test_read_from_its_configuration() -> None:
    assert Bert.read(CONFIG, {}) == SHAPE
    shifted = Bert.read({**CONFIG, "model_type": "roberta", "pad_token_id": 1}, {})
    assert shifted is not None and (shifted.first_place, shifted.longest) == (2, 14)
    assert Bert.read({"model_type": "gpt2"}, {}) is None
    with pytest.raises(InputError, match=r"config.json lacks vocab_size, hidden_act"):
        Bert.read({name: value for name, value in CONFIG.items() if name not in ("vocab_size", "hidden_act")}, {})
    with pytest.raises(InputError, match="places are told by 'relative_key'"):
        Bert.read({**CONFIG, "position_embedding_type": "relative_key"}, {})
    with pytest.raises(InputError, match="a width of 8 is not divided by 3 heads"):
        Bert.read({**CONFIG, "num_attention_heads": 3}, {})
    with pytest.raises(InputError, match="unknown value 'swish9'"):
        Bert.read({**CONFIG, "hidden_act": "swish9"}, {})


def test_names_of_files() -> None:
    network = SHAPE.build("mean", True)
    for name in dict(network.named_parameters()):
        assert SHAPE.own_names(their_name(name)) == (name,) == SHAPE.own_names("bert." + their_name(name))
    assert SHAPE.own_names("embeddings.LayerNorm.gamma") == ("norm.weight",)
    assert SHAPE.own_names("bert.pooler.dense.weight") == () == SHAPE.own_names("embeddings.position_ids")


def test_static_words() -> None:
    found = StaticWords.read({}, {"embedding.weight": (9, 4)})
    assert found == StaticWords(vocabulary=9, width=4)
    assert StaticWords.read({}, {"a": (9, 4), "b": (4,)}) is None and StaticWords.read({}, {"a": (9,)}) is None
    network = filled(found.build("mean", False))
    x = {"tokens": torch.tensor([[2, 5, 0]]), "mask": torch.tensor([[True, True, False]])}
    matrix = next(network.parameters())
    torch.testing.assert_close(network(x), matrix[[2, 5]].mean(0, keepdim=True))
    with pytest.raises(InputError, match="the mean of their tokens alone"):
        found.build("cls", False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_it_is_the_reference_implementation(kind: str, operators: None, tmp_path: Path) -> None:
    """To 1e-5, whatever the activation, where transformers are installed (the extra "references")."""
    transformers = pytest.importorskip("transformers")
    config = {**CONFIG, "model_type": kind, "hidden_act": "gelu_new", "pad_token_id": 1 if kind == "roberta" else 0}
    folder = bert_folder(tmp_path / kind, config=config)
    theirs = {"bert": "Bert", "roberta": "Roberta"}[kind]
    settings = getattr(transformers, f"{theirs}Config")(**config)
    reference = getattr(transformers, f"{theirs}Model")(settings, add_pooling_layer=False).eval()
    reference.load_state_dict(weights(), strict=False)
    ours, x = Encoder(path=folder).body(), batch()
    x["tokens"] = x["tokens"].clamp_min(2)  # their places skip what looks like padding
    assert json.loads((Path(folder) / "config.json").read_text())["model_type"] == kind
    with torch.no_grad():
        hidden = reference(input_ids=x["tokens"], attention_mask=x["mask"].long()).last_hidden_state
        torch.testing.assert_close(ours(x), pooled(hidden, x["mask"], "mean", normalized=True), rtol=0, atol=1e-5)


def test_a_first_place_that_nothing_says_is_refused() -> None:
    with pytest.raises(InputError, match="pad_token_id is None"):
        Bert.read({**CONFIG, "model_type": "roberta", "pad_token_id": None}, {})
