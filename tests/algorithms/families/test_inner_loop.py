"""The parts of inner loops."""

import pytest
import torch
from torch import nn

from metaray.algorithms.families.inner_loop import STATISTICS, matching, split_statistics
from metaray.errors import InputError


def test_matching() -> None:
    names, network = ["body.a", "body.b", "head.w"], nn.Identity()
    assert matching("head.*", names, "head", network) == ["head.w"]
    assert matching("body.*", names, "x", network) == names[:2]
    for pattern, extent in (("tail", "no"), ("*", "every")):
        with pytest.raises(InputError, match=f"head '.*' fits {extent} parameter .* body.a, body.b, head.w"):
            matching(pattern, names, "head", network)


def test_frozen_parameters_are_of_the_other_kind() -> None:
    network = nn.ModuleDict({"body": nn.Linear(2, 2, bias=False), "head": nn.Linear(2, 2)})
    network["body"].requires_grad_(False)
    assert matching("head.*", ["head.weight", "head.bias"], "head", network) == ["head.weight", "head.bias"]
    told = (
        r"head 'body.\*' fits frozen parameters of the network alone: body.weight. .* others of: head.weight, head.bias"
    )
    with pytest.raises(InputError, match=told):
        matching("body.*", ["head.weight", "head.bias"], "head", network)


def test_statistics_come_apart_again() -> None:
    one, two = torch.zeros(1), torch.ones(1)
    assert split_statistics({"w": one, f"{STATISTICS}bn.mean": two}) == ({"w": one}, {"bn.mean": two})
