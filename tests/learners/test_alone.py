"""Learners whose networks need what no artifact holds are refused as they are saved, by the name of the file."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import metaray
from metaray.errors import InputError
from metaray.learners import alone
from metaray.learners.learner import Learner
from metaray.models import MLP, Custom
from tests.learners.test_learner_network import answers, learner_of

NETS = """
import os
import math
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import nn


class Plain(nn.Module):
    def __init__(self, *, feature_shape, outputs, path=""):
        super().__init__()
        self.head = nn.Linear(math.prod(feature_shape), outputs)
        self.register_buffer("table", self.read(path))

    def read(self, path):
        print("built")
        return torch.zeros(1)

    def forward(self, x):
        return self.head(x.flatten(1)) + self.table


class Numpy(Plain):
    def read(self, path):
        return torch.from_numpy(np.load(path))


class Safetensors(Plain):
    def read(self, path):
        with safe_open(path, "pt") as file:
            return file.get_tensor("table")


class Torch(Plain):
    def read(self, path):
        return torch.load(path, weights_only=True)


class Beside(Plain):
    def read(self, path):
        return torch.from_numpy(np.load(Path(__file__).with_name("table.npy")))


class IfThere(Plain):
    def read(self, path):
        try:
            return torch.from_numpy(np.load(path))
        except FileNotFoundError:
            return torch.zeros(1)


class Scratch(Plain):
    def read(self, path):
        Path("scratch.npy").write_bytes(b"")
        np.save("scratch.npy", np.ones(1, np.float32))
        return torch.from_numpy(np.load("scratch.npy"))


class Home(Plain):
    def read(self, path):
        return torch.from_numpy(np.fromfile(Path.home() / "table.bin", np.float32))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a package of networks, and files that they read."""
    import numpy as np
    import torch
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    (tmp_path / "alone_nets").mkdir()
    (tmp_path / "alone_nets" / "__init__.py").write_text(NETS)
    table = torch.full((1,), 0.25)
    for name in ("table.npy", "alone_nets/table.npy"):
        np.save(name, table.numpy())
    table.numpy().tofile("table.bin")
    torch.save(table, "table.pt")
    save_file({"table": table}, "table.safetensors")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(alone, "_passed", set())
    yield tmp_path
    sys.modules.pop("alone_nets", None)


def own(name: str, path: str | Path = "") -> Learner:
    return learner_of(Custom(path=f"alone_nets:{name}", options={"path": str(path)}))


@pytest.mark.parametrize(
    ("name", "file", "absolute"),
    [
        ("Numpy", "table.npy", False),
        pytest.param("Numpy", "table.npy", True, marks=pytest.mark.slow),
        pytest.param("Safetensors", "table.safetensors", False, marks=pytest.mark.slow),
        pytest.param("Safetensors", "table.safetensors", True, marks=pytest.mark.slow),
        pytest.param("Torch", "table.pt", True, marks=pytest.mark.slow),
        ("Home", "table.bin", True),
    ],
)
def test_a_file_of_elsewhere_is_refused_by_name(name: str, file: str, absolute: bool, place: Path) -> None:
    learner = own(name, place / file if absolute else file)
    for save in (learner.save, learner.adapt([[0.0] * 3, [1.0] * 3], ["a", "b"]).save):
        with pytest.raises(InputError, match=f"needs files that are not in the learner: it opens .*{file}'") as refusal:
            save(place / "learner")
        assert "\n" not in str(refusal.value)
    assert not (place / "learner").exists()


@pytest.mark.parametrize(
    "name",
    [
        "Plain",
        pytest.param("Beside", marks=pytest.mark.slow),
        pytest.param("IfThere", marks=pytest.mark.slow),
        "Scratch",
    ],
)
def test_what_can_be_built_anywhere_is_saved(name: str, place: Path) -> None:
    learner = own(name, place / "table.npy")
    learner.save(place / "learner")
    (place / "table.npy").unlink()
    loaded = metaray.load(place / "learner", trust=["alone_nets"])
    assert (answers(loaded) == answers(learner)).all(), "with the file's numbers, where the file is gone"


def test_it_is_looked_at_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = own("Plain")
    learner.save(place / "learner")
    monkeypatch.setattr(alone, "_rebuild", lambda files: pytest.fail("again"))
    learner.adapt([[0.0] * 3, [1.0] * 3], ["a", "b"]).save(place / "task")
    learner_of(MLP(hidden=(3,))).save(place / "metarays own")
    with pytest.raises(pytest.fail.Exception):
        own("Beside").save(place / "another")
