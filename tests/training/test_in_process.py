"""Training in process; test_session.py has the run itself."""

from collections.abc import Callable
from pathlib import Path

import pytest

from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.records.events import Event, Listener
from metaray.records.storage import Storage
from metaray.training.in_process import train_in_process


class Broken(Listener):
    closed = False

    def on_event(self, event: Event) -> None:
        raise OSError("nobody reads this pipe any more")

    def close(self) -> None:
        self.closed = True


def test_listeners_are_closed_whatever_happens(make_experiment: Callable[..., Experiment], tmp_path: Path) -> None:
    listener = Broken()
    with pytest.raises(OSError, match="nobody reads"):
        train_in_process(make_experiment(), Storage(str(tmp_path)), listener, device="cpu")
    assert listener.closed


def test_a_wrong_device_is_found_first(make_experiment: Callable[..., Experiment], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown device 'tpu'"):
        train_in_process(make_experiment(), Storage(str(tmp_path)), Broken(), device="tpu")
    assert list(tmp_path.iterdir()) == []
