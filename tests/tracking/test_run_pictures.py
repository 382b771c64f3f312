"""Which runs have a picture of what adaptation does."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from metaray.algorithms import MAML
from metaray.data import FunctionFamily, Source
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment import Experiment
from metaray.models import MLP
from metaray.tracking import run_files
from tests.data.patients import made_table


@pytest.mark.parametrize("drawn", [True, False])
def test_tables_of_one_column_have_none(drawn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their episodes hold scaled numbers, which would be taken for those that users have."""
    table = made_table(tmp_path, leave_out=["day", "age", "colour"])
    assert table.feature_shape == (1,) and table.task.is_curve
    source: Source = FunctionFamily() if drawn else table
    experiment = Experiment(
        name="curve", source=source, episodes=EpisodeSpec(shots=2, queries=2), model=MLP(hidden=(2,)), algorithm=MAML()
    )
    loaded: list[Path] = []

    def stop(folder: Path, **_: Any) -> None:
        loaded.append(folder)
        raise LookupError

    class Storage:
        def download(self, _: str, folder: Path) -> Path:
            return folder

    class Run:
        storage = Storage()

    monkeypatch.setattr(run_files, "load_learner", stop)
    with suppress(LookupError):
        run_files._log_fit(experiment, Run(), None, tmp_path)  # type: ignore[arg-type]
    assert bool(loaded) == drawn
