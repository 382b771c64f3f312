"""What is found out before anything is written; the refusals themselves are tested where they are made."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from metaray.api.checks import check_experiment, writable_storage
from metaray.data import ClassStore
from metaray.errors import InputError
from metaray.experiment import Experiment


def test_a_storage_that_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert writable_storage(str(tmp_path / "new")).names() == []
    with pytest.raises(InputError, match=r"file"):
        writable_storage(str(tmp_path / "file"))


def test_the_data_is_read_whole_where_that_is_asked_for(
    make_experiment: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(ClassStore, "verify", lambda self: asked.append(self.path))
    experiment = make_experiment()
    check_experiment(experiment, torch.device("cpu"), verify=False)
    assert asked == []
    check_experiment(experiment, torch.device("cpu"), verify=True)
    assert len(asked) == 1
