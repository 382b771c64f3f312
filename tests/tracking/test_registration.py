"""Which code the present champion may name; what is granted already."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from metaray.data import UMTRA, ClassStore
from metaray.data.preprocessing import ImagePreprocessing
from metaray.experiment.experiment import Experiment
from metaray.tracking import registration
from metaray.tracking.promotion import Decision, Wish
from metaray.tracking.registration import Published, _granted, _packages
from metaray.tracking.registry import ModelVersion
from metaray.tracking.server import MlflowServer

MakeExperiment = Callable[..., Experiment]


class Ink(ImagePreprocessing):
    """A preprocessing of the user's own."""


class Store(ClassStore):
    """A source of the user's own, with that."""

    kind: ClassVar[str] = "store"

    @property
    def preprocessing(self) -> Ink:
        return Ink(height=16, width=16)


@pytest.mark.parametrize("wrapped", [False, True])
def test_packages_of_nested_parts(
    wrapped: bool, make_experiment: MakeExperiment, tiny_store: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _packages(make_experiment()) == {"metaray"}
    monkeypatch.setattr(Ink, "__module__", "my_inks.dark")
    monkeypatch.setattr(Store, "__module__", "my_stores")
    monkeypatch.setitem(sys.modules, "my_stores", SimpleNamespace(Store=Store))
    store = Store(path=str(tiny_store))
    experiment = make_experiment(source=UMTRA(source=store) if wrapped else store)
    assert _packages(experiment) == {"metaray", "my_inks", "my_stores"}


VERSION = ModelVersion("m", 1, None, datetime.now(UTC), {}, (), "")
NO, YES = Decision(False, "behind"), Decision(True, "ahead")


@pytest.mark.parametrize(
    ("before", "wish", "granted"),
    [
        (Published(None, None), Wish(register=False), True),
        (Published(None, None), Wish(), False),
        (Published(VERSION, NO), Wish(), True),
        (Published(VERSION, NO), Wish(register=False), True),
        (Published(VERSION, NO), Wish(promote=True), False),
        (Published(VERSION, YES), Wish(promote=True), True),
        (Published(VERSION, None), Wish(promote=True), False),
    ],
)
def test_what_was_done_already_is_not_done_again(before: Published, wish: Wish, granted: bool) -> None:
    assert _granted(before, wish) == granted


@pytest.mark.parametrize(
    ("judged_on", "gpu_here", "wanted"),
    [
        ("cpu", False, [("champion", "cpu")]),
        ("cpu", True, [("champion", "cpu")]),
        ("cuda", True, [("champion", "cuda")]),
        ("cuda", False, [("champion", "cpu"), ("challenger", "cpu")]),
        ("", False, [("champion", "cpu"), ("challenger", "cpu")]),
        ("", True, [("champion", "cpu"), ("challenger", "cpu")]),
    ],
)
def test_champion_and_challenger_are_judged_on_one_kind_of_device(
    judged_on: str,
    gpu_here: bool,
    wanted: list[tuple[str, str]],
    make_experiment: MakeExperiment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Scores of the run count as long as they come from there; on the other kind both would be 0.2 lower."""
    judged: list[tuple[str, str]] = []
    kept = {"champion": np.array([0.5, 0.6, 0.4]), "challenger": np.array([0.51, 0.62, 0.41])}

    def score(one: Any, experiment: Experiment, split: str, *, device: torch.device) -> SimpleNamespace:
        judged.append((one, device.type))
        return SimpleNamespace(score=kept[one] - (0.2 if device.type != judged_on else 0.0))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu_here)
    monkeypatch.setattr(registration, "evaluate_learner", score)
    monkeypatch.setattr(registration, "load_learner", lambda *_, **__: "champion")
    monkeypatch.setattr(registration, "download", lambda *_: Path())
    contest: Any = registration.Contest(make_experiment(), "challenger", judged_on)  # type: ignore[arg-type]
    decision = registration._decide(contest, MlflowServer(""), kept["challenger"], VERSION, {})
    assert judged == wanted
    assert decision.promote and decision.reason.startswith("meta-val difference to version 1: +0.0133 +- ")


def test_a_champion_without_a_finite_score_leaves_the_runs_own_scores(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which its baselines come from, too."""
    scores = {"champion": np.array([np.nan, 0.5])}
    monkeypatch.setattr(registration, "evaluate_learner", lambda one, *_, **__: SimpleNamespace(score=scores[one]))
    monkeypatch.setattr(registration, "load_learner", lambda *_, **__: "champion")
    monkeypatch.setattr(registration, "download", lambda *_: Path())
    contest: Any = registration.Contest(make_experiment(), "challenger", "")  # type: ignore[arg-type]
    decision = registration._decide(contest, MlflowServer(""), [0.5, 0.6], VERSION, {"chance": [0.1, 0.25]})
    assert (
        decision.promote and "is nan, which is not finite: now 0.5500, meta-val difference to chance" in decision.reason
    )
