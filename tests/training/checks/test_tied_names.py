"""Patterns that fit a tied parameter by its second name alone are refused, wherever they stand."""

from collections.abc import Callable
from typing import Any

import pytest

from metaray.algorithms import ANIL, MAML, Algorithm
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.training.checks.preflight import preflight
from tests.user_networks import own

MakeExperiment = Callable[..., Experiment]


@pytest.mark.parametrize(
    ("algorithm", "field"),
    [
        (MAML(adapts=("head.*",)), "adapts"),
        (MAML(adapts=("head.weight", "body.*")), "adapts"),
        (ANIL(), "head"),
        (MAML(inner_lr={"*": 0.1, "head.*": 0.2}), "inner_lr"),
    ],
    ids=lambda one: one.kind if isinstance(one, Algorithm) else one,
)
def test_a_second_name_is_not_enough(make_experiment: MakeExperiment, algorithm: Algorithm, field: str) -> None:
    told = rf"{field} 'head.[*a-z]+' fits 'head.weight', (which|but that) is 'words.weight' under another name"
    with pytest.raises(InputError, match=told):
        preflight(make_experiment(model=own("TiedHead"), algorithm=algorithm))


@pytest.mark.parametrize(
    "fields",
    [
        {"adapts": ("head.*", "words.weight")},
        {"adapts": ("head.bias",)},
        {"adapts": ("*",)},
        {"inner_lr": {"*": 0.1, "head.*": 0.2, "words.*": 0.2}},
    ],
)
def test_with_the_first_name_or_without_both(make_experiment: MakeExperiment, fields: dict[str, Any]) -> None:
    preflight(make_experiment(model=own("TiedHead"), algorithm=MAML(**fields)))


def test_what_adapts_must_matter(make_experiment: MakeExperiment) -> None:
    with pytest.raises(
        InputError, match="the loss depends on none of the parameters that inner steps would change: mo"
    ):
        preflight(make_experiment(model=own("ByHand"), algorithm=MAML(adapts=("more.spare.*",))))


def test_what_is_handed_on_in_attributes_cannot_be_computed_again(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(model=own("Gated"), algorithm=MAML(inner_lr=0.5, inner_steps=3, adapts=("head.*",)))
    preflight(experiment)
    for shots, why in ((1, "The size of tensor a"), (2, "a relative difference of")):
        again = {"recompute_inner_steps": True, "episodes": EpisodeSpec(ways=3, shots=shots, queries=2)}
        with pytest.raises(InputError, match=f"recompute_inner_steps: .* computed again are others.*{why}"):
            preflight(experiment.model_copy(update=again))
