"""A record that somebody else may have written runs no code of its choice."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metaray.api.tune import stored_search
from metaray.config import replace
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.experiment.packages import packages_in, packages_of
from metaray.manifest import sealed_json, unsealed_json
from metaray.models import MLP
from metaray.records.storage import Storage
from metaray.tuning.ledger import open_ledger
from metaray.tuning.search import Search
from tests.conftest import Trained

HOSTILE = """
from pathlib import Path
from metaray.models import MLP

Path(__file__).with_name("ran").touch()

class Net(MLP):
    pass
"""


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module that must not be imported; the file beside it tells whether it was."""
    (tmp_path / "hostile.py").write_text(HOSTILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield tmp_path / "ran"
    sys.modules.pop("hostile", None)


@pytest.fixture
def runs(trained: Trained, tmp_path: Path) -> Path:
    """A run whose record names that module."""
    shutil.copytree(trained.storage, tmp_path / "runs")
    record = tmp_path / "runs/first/run.json"
    tree = unsealed_json(record.read_text(), where="run.json")
    tree["experiment"]["model"]["kind"] = "hostile:Net"
    record.write_bytes(sealed_json(tree))
    return tmp_path / "runs"


def test_an_upload_asks_for_trust(hostile: Path, runs: Path, trained: Trained, command: Any) -> None:
    words = ("upload", "first", "--storage", runs, "--tracking-uri", trained.uri, "--no-register")
    ended = command(*words)
    assert ended.code == 2 and "refusing to import 'hostile:Net'" in ended.err and "--trust hostile" in ended.err
    assert not hostile.exists()
    command(*words, "--trust", "hostile")
    assert hostile.exists()


def test_a_run_is_compared_with_a_record_without_running_its_code(
    hostile: Path, runs: Path, trained: Trained, command: Any
) -> None:
    ended = command("train", trained.experiment, "--run", "first", "--storage", runs, "--tracking-uri", trained.uri)
    assert ended.code == 2 and "model.kind: hostile:Net -> mlp" in ended.err and not hostile.exists()


def test_a_search_that_goes_on_asks_for_trust(
    hostile: Path, tmp_path: Path, make_experiment: Any, command: Any
) -> None:
    space = {"algorithm.inner_lr": "choice(0.1, 0.2)"}
    search = Search(experiment=make_experiment(), space=space, trials=2, scheduler="none")
    open_ledger(Storage(str(tmp_path / "runs/mine")), search, {})
    record = tmp_path / "runs/mine/search.json"
    tree = unsealed_json(record.read_text(), where="search.json")
    tree["search"]["experiment"]["model"]["kind"] = "hostile:Net"
    record.write_bytes(sealed_json(tree))
    ended = command("tune", "--run", "mine", "--storage", tmp_path / "runs")
    assert ended.code == 2 and "refusing to import 'hostile:Net'" in ended.err
    with pytest.raises(InputError, match="refusing to import"):
        open_ledger(Storage(str(tmp_path / "runs/mine")), search, {})
    assert not hostile.exists()
    assert stored_search(str(tmp_path / "runs"), "mine", ["hostile"]).packages == ("hostile",) and hostile.exists()


class Mine(MLP):
    pass


def test_whose_code_an_experiment_names(make_experiment: Any) -> None:
    experiment: Experiment = make_experiment()
    assert packages_of(experiment) == ()
    assert packages_of(replace(experiment, model=Mine())) == (__name__.partition(".")[0],)
    assert packages_in(["a.b:C", "a:D", "metaray.x:Y", "b"]) == ("a", "b")
