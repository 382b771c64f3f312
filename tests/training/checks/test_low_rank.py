"""Factors that would change nothing are refused before anything starts."""

from collections.abc import Callable

import pytest

from metaray.algorithms import MAML, ProtoNet
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.models import LoRA
from metaray.training.checks.preflight import preflight
from tests.user_networks import own


def test_layers_that_nothing_calls(make_experiment: Callable[..., Experiment]) -> None:
    model = own("ByHand")
    for targets in (("more.used",), ("*",)):
        with pytest.raises(InputError, match=r"lora: no forward pass calls 'more.used'.*Name other targets"):
            preflight(make_experiment(model=LoRA(model=model, targets=targets, rank=2), algorithm=ProtoNet()))
    preflight(make_experiment(model=LoRA(model=model, targets="body", rank=2), algorithm=MAML()))


def test_a_block_with_two_names_can_be_trained(make_experiment: Callable[..., Experiment]) -> None:
    for model in (own("Repeating"), LoRA(model=own("Repeating"), targets=("repeated.*",), rank=2)):
        preflight(make_experiment(model=model))
