"""Learners whose networks hold more than what is trained: saved, and again what they were, or refused."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save, save_file
from torch import Tensor

from metaray.algorithms import MAML
from metaray.algorithms.algorithm import start
from metaray.algorithms.task_shape import TaskShape
from metaray.data.preprocessing import VectorPreprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.learners.learner import Learner
from metaray.learners.learner_file import DESCRIPTION, STATE
from metaray.learners.loading import load_learner
from metaray.manifest import MANIFEST, sealed
from metaray.models import MLP, Model
from metaray.models.state import kept, marks_of, rebuilt
from tests.user_networks import TABLE, WIDTH, own

LABELS = ["a", "b", "a", "b"]


def learner_of(model: Model) -> Learner:
    algorithm, task_shape = MAML(inner_lr=0.1, batch_norm="inductive"), TaskShape((3,), 2)
    network, meta = start(algorithm, model, task_shape, seed=3)
    return Learner(
        algorithm,
        model,
        meta,
        VectorPreprocessing(size=3),
        EpisodeSpec(ways=2, shots=2, queries=2),
        seed=3,
        state=kept(network),
        rebuilt=marks_of(rebuilt(network)),
    )


def answers(learner: Learner) -> NDArray[np.float32]:
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    return learner.adapt(x[:4], LABELS).predict_proba(x[4:])


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of weights that a network reads when it is built."""
    path = tmp_path / "table.safetensors"
    write(path, 0)
    monkeypatch.setenv(TABLE, str(path))
    return path


def write(path: Path, seed: int) -> None:
    save_file({"table": torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))}, path)


def keep(learner: Learner, folder: Path) -> None:
    """As learners were saved before their networks had to be built without files of others."""
    folder.mkdir()
    for name, data in learner.files().items():
        (folder / name).write_bytes(data)


def load_own(folder: Path) -> Learner:
    return load_learner(folder, trust=["tests"])


def test_a_network_that_holds_much_comes_back_the_same(tmp_path: Path) -> None:
    learner = learner_of(own("Held"))
    learner.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("learner.json", "manifest.json", "parameters.safetensors"),
        STATE,
    ]
    assert json.loads((tmp_path / DESCRIPTION).read_text())["format"] == 2, "older versions must refuse it"
    loaded = load_own(tmp_path)
    assert loaded.state.keys() == learner.state.keys() and loaded.rebuilt == learner.rebuilt
    assert np.array_equal(answers(loaded), answers(learner))


def test_buffers_may_be_infinite(tmp_path: Path) -> None:
    learner = learner_of(own("Masked"))
    learner.save(tmp_path)
    assert np.array_equal(answers(load_own(tmp_path)), answers(learner))


@pytest.mark.parametrize("model", [MLP(hidden=(4,)), own("Plain")], ids=str)
def test_what_holds_nothing_is_saved_as_ever(model: Model, tmp_path: Path) -> None:
    learner_of(model).save(tmp_path)
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    assert description["format"] == 1 and not {"state", "rebuilt"} & description.keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == [DESCRIPTION, MANIFEST, "parameters.safetensors"]


@pytest.mark.parametrize("how", ["persistent", "frozen"])
def test_what_is_saved_needs_its_file_no_more_than_to_be_built(how: str, table: Path, tmp_path: Path) -> None:
    """A learner became another one when the file that its network reads had changed."""
    learner = learner_of(own("Reading", how=how))
    keep(learner, tmp_path / "learner")
    before = answers(learner)
    write(table, 1)
    assert np.array_equal(answers(load_own(tmp_path / "learner")), before)
    assert np.array_equal(answers(learner), before)


@pytest.mark.parametrize(("how", "name"), [("buffer", "table"), ("attribute", r"tables\[1\]")])
def test_what_is_not_saved_must_be_built_the_same(how: str, name: str, table: Path, tmp_path: Path) -> None:
    learner = learner_of(own("Reading", how=how))
    keep(learner, tmp_path / "learner")
    before = answers(learner)
    assert np.array_equal(answers(load_own(tmp_path / "learner")), before)
    loaded = load_own(tmp_path / "learner")
    write(table, 1)
    assert np.array_equal(answers(loaded), before), "by the network that was built as it was loaded"
    told = (
        f"building its network gives another '{name}' than it was trained with: a file that is read there has changed"
    )
    with pytest.raises(InputError, match=f"{tmp_path}/learner: {told}"):
        load_own(tmp_path / "learner")
    with pytest.raises(InputError, match=told):
        answers(loaded)


@pytest.mark.parametrize("how", ["persistent", "frozen", "buffer", "attribute"])
def test_a_file_that_is_gone_is_told_in_one_line(how: str, table: Path, tmp_path: Path) -> None:
    keep(learner_of(own("Reading", how=how)), tmp_path / "learner")
    table.unlink()
    told = r"/learner: tests\.user_networks:Reading cannot be built: FileNotFoundError: .*table\.safetensors"
    with pytest.raises(InputError, match=told) as refusal:
        load_own(tmp_path / "learner")
    assert "\n" not in str(refusal.value)
    table.write_bytes(b"no safetensors")
    with pytest.raises(InputError, match="Reading cannot be built: SafetensorError"):
        load_own(tmp_path / "learner")


def without(name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda state: state.pop(name)


DAMAGES: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "absent": (without("saved"), r"buffer saved: the model wants \[8\], the file has absent"),
    "strange": (lambda s: s.update(more=torch.zeros(1)), r"buffer more: the model wants absent, the file has \[1\]"),
    "shape": (lambda s: s.update(saved=torch.zeros(3)), r"buffer saved: the model wants \[8\], the file has \[3\]"),
    "type": (lambda s: s.update(saved=torch.zeros(8).double()), "wants torch.float32, the file has torch.float64"),
    "not finite": (
        lambda s: s.update({"fixed.bias": torch.full((8,), torch.nan)}),
        "frozen parameter fixed.bias is not finite",
    ),
}


@pytest.mark.parametrize(("damage", "told"), DAMAGES.values(), ids=DAMAGES)
def test_a_state_that_is_not_the_models(
    damage: Callable[[dict[str, Tensor]], object], told: str, tmp_path: Path
) -> None:
    files = learner_of(own("Held")).files()
    state = load(files[STATE])
    damage(state)
    reseal(tmp_path, files | {STATE: save(state)})
    with pytest.raises(InputError, match=f"{tmp_path}: .*{told}"):
        load_own(tmp_path)


def reseal(folder: Path, files: dict[str, bytes]) -> None:
    """With checksums made right again: what someone who means harm would do."""
    for name, data in sealed({name: data for name, data in files.items() if name != MANIFEST}).items():
        (folder / name).write_bytes(data)


def test_a_format_that_does_not_go_with_its_files(tmp_path: Path) -> None:
    files = learner_of(own("Held")).files()
    description = json.loads(files[DESCRIPTION])
    for changes, told in (
        ({"format": 1}, f"has format 1, but also {STATE}"),
        ({"format": 4}, "linked: sha256 is missing"),
        ({"format": 5}, "has format 5; this metaray reads formats 1, 2, 3, 4"),
        ({"rebuilt": [1]}, "rebuilt does not describe tensors"),
    ):
        reseal(tmp_path, files | {DESCRIPTION: json.dumps(description | changes).encode()})
        with pytest.raises(InputError, match=told):
            load_own(tmp_path)
    (tmp_path / STATE).unlink()
    reseal(tmp_path, {name: data for name, data in files.items() if name != STATE})
    with pytest.raises(InputError, match=f"has format 2, but no {STATE}"):
        load_own(tmp_path)


def test_learners_of_before_buffers_were_saved_load(tmp_path: Path) -> None:
    """Their buffers are rebuilt, as they were then; frozen parameters there could be none."""
    learner = learner_of(own("Remembering"))
    files = learner.files()
    description = json.loads(files[DESCRIPTION]) | {"format": 1}
    del description["rebuilt"]
    reseal(
        tmp_path,
        {name: data for name, data in files.items() if name != STATE} | {DESCRIPTION: json.dumps(description).encode()},
    )
    assert np.array_equal(answers(load_own(tmp_path)), answers(learner))
    description["model"] = {"kind": "custom", "path": "tests.user_networks:Held", "options": {}}
    reseal(
        tmp_path,
        {name: data for name, data in files.items() if name != STATE} | {DESCRIPTION: json.dumps(description).encode()},
    )
    with pytest.raises(InputError, match=r"frozen parameter or buffer fixed.bias: the model wants \[8\], .* absent"):
        load_own(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_buffers_may_be_infinite_and_frozen_parameters_may_not(value: float, tmp_path: Path) -> None:
    """As the mask of an attention is."""
    learner = learner_of(own("Held"))
    network = learner.network
    frozen = {name for name, tensor in network.named_parameters() if not tensor.requires_grad}
    buffer = min(name for name, tensor in learner.state.items() if name not in frozen and tensor.is_floating_point())
    state = {name: tensor.detach().clone() for name, tensor in learner.state.items()}
    state[buffer].view(-1)[0] = value
    dataclasses.replace(learner, state=state).save(tmp_path)
    assert load_own(tmp_path).state.keys() == state.keys()
    state[min(frozen)].view(-1)[0] = value
    dataclasses.replace(learner, state=state).save(tmp_path)
    with pytest.raises(InputError, match=f"frozen parameter {min(frozen)} is not finite"):
        load_own(tmp_path)
