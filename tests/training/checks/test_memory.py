"""What has passed is not checked again, unless anything that matters has changed."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metaray.algorithms import MAML, ProtoNet
from metaray.config import replace
from metaray.experiment.experiment import Experiment
from metaray.models import Custom
from metaray.training.checks.memory import Memory
from metaray.training.checks.preflight import CPU, preflight
from metaray.training.outer_loop import initial_state

MakeExperiment = Callable[..., Experiment]

NETS = """
from torch import nn
from usershelp import scaled

class Net(nn.Module):
    def __init__(self, *, feature_shape, outputs):
        super().__init__()
        self.flat, self.head = nn.Flatten(), nn.Linear(256, outputs)

    def forward(self, x):
        return scaled(self.head(self.flat(x)))
"""
HELP = """
def scaled(x):
    return x * 2
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's package of two files, and a cache of its own."""
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path / "code")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "usersnets.py").write_text(NETS)
    (tmp_path / "code" / "usershelp.py").write_text(HELP)
    yield tmp_path / "code"
    for name in ("usersnets", "usershelp"):
        sys.modules.pop(name, None)


@pytest.fixture
def experiment(code: Path, make_experiment: MakeExperiment) -> Experiment:
    return make_experiment(model=Custom(path="usersnets:Net"))


def passes(experiment: Experiment) -> bool:
    """Whether a check runs, and passes."""
    ran = []
    Memory(experiment, initial_state(experiment, CPU).network).once("test", lambda: ran.append(True))
    return bool(ran)


def changed(file: Path, before: str, after: str) -> None:
    file.write_text(file.read_text().replace(before, after))
    importlib.invalidate_caches()
    sys.modules.pop(file.stem, None)


def test_once_is_enough(experiment: Experiment) -> None:
    assert [passes(experiment) for _ in range(3)] == [True, False, False]


def test_the_checks_of_a_start_are_those_that_are_remembered(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preflight(replace(experiment, chunk_size=2))
    assert sorted(path.stem.rpartition("-")[2] for path in (tmp_path / "cache/preflight").glob("*.json")) == [
        "chunks",
        "stateless",
    ]
    for name in ("check_mapping", "check_stateless"):
        monkeypatch.setattr(f"metaray.training.checks.preflight.{name}", None)
    preflight(replace(experiment, chunk_size=2))


@pytest.mark.parametrize("file", ["usersnets.py", "usershelp.py"])
def test_changed_code_is_checked_again(file: str, experiment: Experiment, code: Path) -> None:
    assert passes(experiment) and not passes(experiment)
    changed(code / file, "x", "x ")
    assert passes(experiment)


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": MAML(inner_lr=0.2)},
        {"algorithm": MAML(inner_steps=3)},
        {"episodes": {"ways": 3, "shots": 2, "queries": 2}},
        {"precision": {"dtype": "bfloat16"}},
    ],
    ids=str,
)
def test_another_experiment_is_checked_again(change: dict[str, object], experiment: Experiment) -> None:
    assert passes(experiment) and passes(replace(experiment, **change))


def test_other_versions_check_again(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    assert passes(experiment)
    monkeypatch.setattr("torch.__version__", "2.99")
    assert passes(experiment)


@pytest.mark.parametrize("damage", [b"", b"{", b"[" * 9000, b"\xff\xfe", b"{}", b'{"passed": "something else"}'])
def test_a_damaged_memory_is_none(damage: bytes, experiment: Experiment, tmp_path: Path) -> None:
    assert passes(experiment)
    (found,) = (tmp_path / "cache" / "preflight").iterdir()
    found.write_bytes(damage)
    assert passes(experiment) and not passes(experiment)


def test_without_a_cache_everything_is_checked(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "file"))
    assert passes(experiment) and passes(experiment)


def test_what_fails_is_not_remembered(experiment: Experiment) -> None:
    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        Memory(experiment, initial_state(experiment, CPU).network).once("test", fail)
    assert passes(experiment)


def test_code_without_a_file_is_always_checked(experiment: Experiment) -> None:
    sys.modules["usersnets"].__file__ = None
    assert passes(experiment) and passes(experiment)


def test_metarays_own_networks_need_no_files(
    make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path))
    assert passes(make_experiment()) and not passes(make_experiment())
    assert passes(make_experiment(algorithm=ProtoNet()))
