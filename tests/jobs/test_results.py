"""The page of accuracies."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.benchmarks import results
from metaray.errors import InputError
from metaray.records.estimate import Estimate
from metaray.records.result import RESULT, Result
from metaray.tracking.server import MlflowServer

SCORE = Estimate(2.5, 0.1, 600)
REGRESSION = Result(5, 5, SCORE, (2.4, 2.6), SCORE, None, SCORE, "0" * 64, "10-shot", 1.0, 0.0, 5.0, "mse")


def test_a_run_of_regression_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiment.json").write_text('{"name": "waves"}')
    (tmp_path / RESULT).write_text(REGRESSION.to_json())

    def client(uri: str) -> Any:
        return SimpleNamespace(get_run=lambda run: None, download_artifacts=lambda *place: str(tmp_path))

    monkeypatch.setattr("metaray.tracking.server.open_client", client)
    with pytest.raises(InputError, match=r"run abc \(waves\) was judged by mse: this page holds accuracies alone"):
        results.read(MlflowServer("uri"), "abc", tmp_path / "out", [])
    (tmp_path / RESULT).write_text(dataclasses.replace(REGRESSION, quality="accuracy").to_json())
    with pytest.raises(FileNotFoundError, match="learning_curve.png"):
        results.read(MlflowServer("uri"), "abc", tmp_path / "out", [])
