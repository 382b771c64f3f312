"""The parts of inner loops."""

import pytest
import torch

from metaray.algorithms.inner_loop import STATISTICS, matching, split_statistics
from metaray.errors import InputError


def test_matching() -> None:
    names = ["body.a", "body.b", "head.w"]
    assert matching("head.*", names, "head") == ["head.w"] and matching("body.*", names, "x") == names[:2]
    for pattern, extent in (("tail", "no"), ("*", "every")):
        with pytest.raises(InputError, match=f"head '.*' fits {extent} parameter .* body.a, body.b, head.w"):
            matching(pattern, names, "head")


def test_statistics_come_apart_again() -> None:
    one, two = torch.zeros(1), torch.ones(1)
    assert split_statistics({"w": one, f"{STATISTICS}bn.mean": two}) == ({"w": one}, {"bn.mean": two})
