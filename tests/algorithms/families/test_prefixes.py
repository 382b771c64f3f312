"""Parameters in parts."""

import pytest
import torch

from metaray.algorithms.families.prefixes import join, part, without
from metaray.errors import InputError


def test_parts_come_apart_as_they_were_joined() -> None:
    network, extra = {"body.weight": torch.zeros(2)}, {"weight": torch.ones(3)}
    meta = join(network, {"joint:": extra})
    assert meta.keys() == {"body.weight", "joint:weight"}
    assert part(meta, "joint:") == extra and without(meta, "joint:") == network and without(network) == network


def test_a_name_that_is_taken() -> None:
    with pytest.raises(InputError, match=r"'joint:weight', but names in 'joint:' are the algorithm's"):
        join({"joint:weight": torch.zeros(2)}, {"joint:": {}})
