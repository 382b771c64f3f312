"""Which code the present champion may name."""

from collections.abc import Callable
from typing import ClassVar

import pytest

from metaray.data import UMTRA, ClassStore
from metaray.data.preprocessing import ImagePreprocessing
from metaray.tracking.publishing import _packages
from metaray.training.experiment import Experiment

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
    store = Store(path=str(tiny_store))
    experiment = make_experiment(source=UMTRA(source=store) if wrapped else store)
    assert _packages(experiment) == {"metaray", "my_inks", "my_stores"}
