"""Groups of like lengths: the same vectors and derivatives as of all texts padded to the longest."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from metaray.data.preprocessing import TextPreprocessing
from metaray.models.encoders import Encoder, OwnModule
from metaray.models.encoders.architecture import Pooling
from metaray.models.encoders.encoder import EncoderNetwork
from tests.models.encoders.tiny import SHAPE, bert_folder, filled, tokenizer
from tests.models.encoders.tiny_images import resnet_folder


def texts(lengths: list[int], most: int = 16) -> dict[str, Tensor]:
    tokens = torch.randint(1, SHAPE.vocabulary, (len(lengths), most), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(most) < torch.tensor(lengths)[:, None]
    return {"tokens": tokens * mask, "mask": mask}


def networks(*, pooling: Pooling = "mean") -> tuple[EncoderNetwork, EncoderNetwork]:
    bodies = [filled(SHAPE.build(pooling, True)).double() for _ in range(2)]
    return EncoderNetwork(bodies[0], 8, None), EncoderNetwork(bodies[1], 8, None, by_length=True)


@pytest.mark.parametrize("lengths", [[16, 3, 9, 1, 8, 12], [2, 3], [16, 16], [1, 5, 12]], ids=str)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_same_vectors(lengths: list[int], pooling: Pooling) -> None:
    together, apart = networks(pooling=pooling)
    torch.testing.assert_close(apart(texts(lengths)), together(texts(lengths)), rtol=0, atol=1e-12)


def test_no_place_is_computed_that_no_text_of_the_group_needs() -> None:
    _, network = networks()
    seen: list[tuple[int, ...]] = []
    network.body.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0]["tokens"].shape)))
    network(texts([3, 16, 9, 8, 1]))
    assert seen == [(3, 8), (2, 16)]


def test_the_same_derivatives_twice() -> None:
    x, found = texts([16, 3, 9, 8]), []
    for network in networks():
        parameters = {name: one.detach().clone().requires_grad_() for name, one in network.named_parameters()}
        loss = torch.func.functional_call(network, parameters, (x,)).square().sum(0)[:3].sum()
        some = [parameters["body.layers.0.query.weight"], parameters["body.words.weight"]]
        first = torch.autograd.grad(loss, some, create_graph=True)
        found.append([*first, *torch.autograd.grad(torch.stack([one.square().sum() for one in first]).sum(), some)])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-10)
    assert all(bool(one.detach().any()) for one in found[0])


def test_mapped_over_all_go_together() -> None:
    together, apart = networks()
    x = {name: torch.stack([part, part.flip(0)]) for name, part in texts([16, 3, 9]).items()}
    torch.testing.assert_close(torch.vmap(apart)(x), torch.vmap(together)(x), rtol=0, atol=0)


def test_refused_where_all_are_of_one_length_or_see_each_other(tmp_path: Path) -> None:
    encoder = Encoder(path=bert_folder(tmp_path / "text"), by_length=True)
    assert encoder.build_for((None,), 3, TextPreprocessing(tokenizer=tokenizer(), longest=12)).by_length
    with pytest.raises(ValueError, match="what a resnet encoder takes is all of one length"):
        Encoder(path=resnet_folder(tmp_path / "images"), by_length=True)
    own = OwnModule(path="tests.models.encoders.test_own_modules:Net", width=4)
    with pytest.raises(ValueError, match="may normalise over its batch"):
        Encoder(path="here", sha256="0" * 64, architecture=own, by_length=True, frozen=False)
