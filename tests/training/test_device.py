"""Choosing a device."""

from collections.abc import Callable

import pytest
import torch

from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.training.device import choose_device, set_execution


@pytest.mark.parametrize("there", [True, False])
def test_auto_takes_what_is_there(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert choose_device().type == ("cuda" if there else "cpu") and choose_device("cpu").type == "cpu"


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="'cuda' asked for, but torch sees no GPU here; use --device cpu"):
        choose_device("cuda")
    with pytest.raises(InputError, match="unknown device 'tpu'"):
        choose_device("tpu")


def test_threads_are_the_experiments(make_experiment: Callable[..., Experiment]) -> None:
    try:
        set_execution(make_experiment(threads_per_worker=2), torch.device("cpu"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
