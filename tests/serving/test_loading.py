"""Opening a learner's folder."""

from pathlib import Path

import pytest

from metaray.errors import InputError
from metaray.serving.loading import load_learner


def test_loads_what_was_saved(folder: Path) -> None:
    assert load_learner(folder).algorithm.kind == "protonet"


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing' does not exist"):
        load_learner(tmp_path / "missing")


def test_folder_without_a_learner(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not hold a whole learner"):
        load_learner(tmp_path)
