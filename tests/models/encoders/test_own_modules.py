"""Encoders of one's own: any module by its import path, with a file of weights that has its names."""

import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import metaray
from metaray import Experiment, write_class_store
from metaray.algorithms import ProtoNet
from metaray.data.preprocessing import EncodedPreprocessing, VectorPreprocessing
from metaray.errors import InputError
from metaray.experiment.packages import packages_of
from metaray.imports import paths_in
from metaray.models import MLP, Encoder
from metaray.models.batch_norm import FrozenBatchNorm, normalises_batches
from metaray.models.encoders import OwnModule
from metaray.models.encoders.embedding import embed_store
from metaray.trust import Untrusted
from tests.models.encoders.test_embedded_stores import experiment

HERE = "tests.models.encoders.test_own_modules"
VECTORS = VectorPreprocessing(size=3)


class Net(nn.Module):
    """A linear layer and a batch norm."""

    def __init__(self, width: int = 4, *, flat: bool = True) -> None:
        super().__init__()
        self.line, self.norm, self.flat = nn.Linear(3, width), nn.BatchNorm1d(width), flat

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.norm(self.line(x))
        return found if self.flat else found[:, None]


class Numbered(nn.Module):
    """A linear layer, and a buffer of whole numbers."""

    order: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 4)
        self.register_buffer("order", torch.arange(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.line(x)[:, self.order]
        return found


def broken() -> nn.Module:
    raise RuntimeError("no luck")


def nothing() -> None:
    """Returns no module."""


@pytest.fixture
def weights(tmp_path: Path) -> str:
    torch.manual_seed(0)
    net = Net()
    net(torch.randn(40, 3) * 5 + 2)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    return str(tmp_path / "net.safetensors")


def own(path: str, name: str = "Net", width: int = 4, **options: Any) -> Encoder:
    architecture = {"kind": "module", "path": f"{HERE}:{name}", "width": width, "options": options}
    return Encoder.parse({"path": path, "architecture": architecture, "normalized": False}, where="model")


def test_its_weights_are_those_of_the_file(weights: str) -> None:
    encoder = own(weights)
    assert encoder == Encoder(
        path=weights, architecture=OwnModule(path=f"{HERE}:Net", width=4), normalized=False
    ) and encoder == Encoder.parse(encoder.model_dump(mode="json"), where="model")
    before = torch.random.get_rng_state()
    body = encoder.body(VECTORS)
    assert torch.equal(before, torch.random.get_rng_state()), "what its initialisation draws is for nothing"
    net = Net().eval()
    net.load_state_dict(metaray_tensors(weights))
    x = torch.randn(5, 3)
    torch.testing.assert_close(body.train()(x), net(x))
    assert isinstance(body.get_submodule("module.norm"), FrozenBatchNorm)
    trained = encoder.model_copy(update={"frozen": False}).body(VECTORS)
    assert normalises_batches(trained) and all(parameter.requires_grad for parameter in trained.parameters())


def metaray_tensors(path: str) -> dict[str, torch.Tensor]:
    return dict(load_file(path))


def test_masks_may_be_infinite_but_nothing_is_no_number(weights: str) -> None:
    tensors = load_file(weights)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    for value, refused in ((-torch.inf, False), (torch.nan, True)):
        tensors[name].view(-1)[0] = value
        save_file(tensors, weights)
        if not refused:
            own(weights).body(VECTORS)
            continue
        with pytest.raises(InputError, match=rf"{name} holds values that are no finite numbers"):
            own(weights).body(VECTORS)


def test_what_is_refused(weights: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot import 'no_such_package'.*modules are looked for in the working dir"):
        Encoder.parse(
            {"path": weights, "architecture": {"kind": "module", "path": "no_such_package:Net", "width": 4}},
            where="model",
        )
    with pytest.raises(InputError, match=f"unknown name in {HERE} 'Nett'. Did you mean 'Net'"):
        own(weights, "Nett")
    nobodys = ("subprocess:run", "os:system", "torch.hub:load", "metaray:load", "metaray.imports:resolve")
    for path in (*nobodys, f"{HERE}:HERE", "metaray.models:MLP"):
        with pytest.raises(InputError, match=f"'{path}' is neither a class derived from torch"):
            OwnModule.parse({"path": path, "width": 4}, where="encoder")
    with pytest.raises(InputError, match="(?s)broken cannot be built:.*no luck"):
        own(weights, "broken").body(VECTORS)
    with pytest.raises(InputError, match="nothing returned NoneType, not a torch.nn.Module"):
        own(weights, "nothing").body(VECTORS)
    with pytest.raises(InputError, match="Net can't be called with depth: got an unexpected keyword argument 'depth'"):
        own(weights, depth=3).body(VECTORS)
    with pytest.raises(InputError, match=r"module.line.bias of the module network has \[5\]"):
        own_wide(weights).body(VECTORS)
    with pytest.raises(InputError, match=r"Net makes \[2, 4\] of 2 inputs, not \[2, 7\]"):
        own(weights, width=7).body(VECTORS)(torch.zeros(2, 3))
    with pytest.raises(InputError, match=r"Net makes \[2, 1, 4\] of 2 inputs, not \[2, 4\]"):
        own(weights, flat=False).body(VECTORS)(torch.zeros(2, 3))
    others = {name.replace("line", "row"): tensor for name, tensor in metaray_tensors(weights).items()}
    save_file(others, tmp_path / "others.safetensors")
    said = r"fit a module network: they lack module.line.bias, .* \(2\) and hold row.bias, row.weight \(2\), which"
    with pytest.raises(InputError, match=said):
        own(str(tmp_path / "others.safetensors")).body(VECTORS)
    with pytest.raises(InputError, match="pooling of a module encoder: mean"):
        Encoder.parse({**own(weights).model_dump(mode="json"), "pooling": "cls"}, where="model")


def own_wide(weights: str) -> Encoder:
    architecture = OwnModule(path=f"{HERE}:Net", width=4, options={"width": 5})
    return Encoder(path=weights, architecture=architecture)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own, on the path of this process."""
    (tmp_path / "code").mkdir()
    text = """
        import torch
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.line = nn.Linear(3, 4)

            def forward(self, x):
                return torch.tanh(self.line(x))
    """
    (tmp_path / "code" / "their_nets.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    return "their_nets:Net"


@pytest.mark.parametrize("kind", ["module", "metaray.models.encoders.own_module:OwnModule"])
def test_a_description_imports_nothing_that_is_not_trusted(kind: str, weights: str) -> None:
    """By whatever name its kind goes: `pickle` would run what it reads."""
    raw, encoder = VECTORS, own(weights)
    described = EncodedPreprocessing(raw=raw, encoder=encoder.model_dump(mode="json"), size=4).model_dump(mode="json")
    architecture = {"kind": kind, "path": "pandas.io.pickle:read_pickle", "width": 4, "options": {}}
    described["encoder"] = {**described["encoder"], "architecture": architecture}
    assert "pandas.io.pickle:read_pickle" in paths_in(described)
    with pytest.raises(InputError, match="refusing to import 'pandas"):
        EncodedPreprocessing.parse(described, where="preprocessing", context={"trust": ()})


def test_buffers_of_whole_numbers_are_held(tmp_path: Path) -> None:
    net = Numbered()
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    held = own(str(tmp_path / "net.safetensors"), "Numbered").held
    found = held.body(VECTORS).state_dict()
    assert {name: tensor.dtype for name, tensor in found.items() if not tensor.is_floating_point()} == {
        "module.order": torch.int64
    }


@pytest.mark.slow
def test_a_learner_leads_to_its_code(package: str, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of its vectors, and a learner of these, import it where it is trusted, and say so where it is not."""
    save_file({"line.weight": torch.randn(4, 3), "line.bias": torch.zeros(4)}, tmp_path / "w.safetensors")
    examples = {f"c{i}": np.random.default_rng(i).normal(i, 0.1, (8, 3)).astype(np.float32) for i in range(9)}
    splits: Any = {
        split: [f"c{i}" for i in range(start, start + 3)]
        for start, split in ((0, "meta-train"), (3, "meta-val"), (6, "meta-test"))
    }
    write_class_store(tmp_path / "raw.arrow", examples, splits, VECTORS)
    encoder = Encoder(path=str(tmp_path / "w.safetensors"), architecture=OwnModule(path=package, width=4))
    out = tmp_path / "vectors.arrow"
    embed_store(str(tmp_path / "raw.arrow"), encoder, out)
    wanted = experiment(str(out), algorithm=ProtoNet())
    with pytest.raises(InputError, match="refusing to import 'their_nets:Net'"):
        _ = Experiment.from_json(wanted.to_json(), trust=()).source.preprocessing
    assert isinstance(wanted.source.preprocessing, EncodedPreprocessing)
    told = train(wanted, register=False)
    told.learner.save(tmp_path / "learner")
    with pytest.raises(Untrusted, match="METARAY_TRUST=their_nets@"):
        metaray.load(str(tmp_path / "learner"))
    known, labels = examples["c0"][:2].tolist() + examples["c8"][:2].tolist(), ["a", "a", "b", "b"]
    task = metaray.load(str(tmp_path / "learner"), trust=["their_nets"]).adapt(known, labels)
    assert list(task.predict([examples["c0"][5], examples["c8"][5]])) == ["a", "b"]
    direct = experiment(str(tmp_path / "raw.arrow"), model=encoder, algorithm=ProtoNet())
    assert packages_of(direct) == ("their_nets",) and packages_of(experiment(str(out), model=MLP())) == ()
    monkeypatch.setattr(sys, "path", [place for place in sys.path if not place.endswith("code")])
    monkeypatch.delitem(sys.modules, "their_nets")
    said = "cannot import 'their_nets'.*modules are looked for in the working directory"
    with pytest.raises(InputError, match=said):
        metaray.load(str(tmp_path / "learner"), trust=["their_nets"])
