"""The recipes: what they read, and that their names and episodes are as they say."""

import pytest

from jobs import parkinsons
from metaray.data import GroupTable
from metaray.experiment import Experiment

RECIPES = {
    "parkinsons-r2d2-10shot": parkinsons.r2d2_10shot,
    "parkinsons-r2d2-5shot": parkinsons.r2d2_5shot,
    "parkinsons-cnp-10shot": parkinsons.cnp_10shot,
    "parkinsons-cnp-5shot": parkinsons.cnp_5shot,
    "parkinsons-maml-10shot": parkinsons.maml_10shot,
    "parkinsons-maml-5shot": parkinsons.maml_5shot,
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_what_they_say(name: str) -> None:
    """They are made, and come back from JSON, without the file."""
    experiment = RECIPES[name]()
    assert experiment.name == name and Experiment.from_json(experiment.to_json()) == experiment
    shots = 5 if name.endswith("-5shot") else 10
    assert (experiment.episodes.shots, experiment.eval_spec.shots) == (shots, shots)
    assert experiment.eval_spec.queries == "rest" and isinstance(experiment.source, GroupTable)
    assert experiment.source.target_std > 1  # scores in units of the UPDRS
