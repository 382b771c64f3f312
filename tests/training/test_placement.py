"""How a run spreads over a cluster."""

import pytest

from metaray.errors import InputError
from metaray.training.placement import Placement


def test_the_default_uses_no_ray() -> None:
    assert Placement().workers == 0 and Placement().address is None


def test_what_does_not_fit_together() -> None:
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        Placement(device="gpu")
    with pytest.raises(InputError, match="needs at least 1 worker"):
        Placement(address="auto")
