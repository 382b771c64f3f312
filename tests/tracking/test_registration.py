"""Which code the present champion may name; what is granted already."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import ClassVar

import pytest

from metaray.data import UMTRA, ClassStore
from metaray.data.preprocessing import ImagePreprocessing
from metaray.experiment.experiment import Experiment
from metaray.tracking.promotion import Decision, Wish
from metaray.tracking.registration import Published, _granted, _packages
from metaray.tracking.registry import ModelVersion

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
    monkeypatch.setitem(sys.modules, "my_stores", SimpleNamespace(Store=Store))  # type: ignore[arg-type]
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
