"""Networks that keep something from one forward pass to the next."""

from collections.abc import Callable

import pytest

from metaray.algorithms import MAML, ProtoNet
from metaray.config import replace
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.training.checks.preflight import preflight
from tests.user_networks import own

MakeExperiment = Callable[..., Experiment]

REFUSED = {
    "OwnStatistics": r"^module 'more' \(Averaging\) changes its buffer 'average' in a forward pass \(in training\)",
    "StatisticsWhenJudged": r"^module 'more' \(Averaging\) changes its buffer 'average' .* \(in evaluation\)",
    "FunctionalStatistics": r"^the network itself \(FunctionalStatistics\) changes its buffer 'mean'",
    "Spectral": r"^module 'more' \(Linear\) changes its buffer 'weight_u'",
    "ParametrizedSpectral": r"^module 'more\.parametrizations\.weight\.0' \(_SpectralNorm\) changes its buffer '_u'",
    "Clamped": r"^module 'body' \(Linear\) changes its parameter 'weight' in place",
    "InPlace": r"^the network itself \(InPlace\) changes its input in place",
    "LateBuffer": r"^the network itself \(LateBuffer\) makes its buffer 'mask' .*: make it where the network is built",
    "Counter": r"^the network itself \(Counter\) changes its 'calls' with every forward pass \(in training\)",
    "Memory": r"^the network itself \(Memory\) changes its 'state' with every forward pass",
    "FirstBatch": r"^what the network itself \(FirstBatch\) gives for the same input depends on what it has seen",
    "ForeignNoise": r"depends on what it has seen before \(in training\), .* must come from torch's generator",
    "AlwaysDropping": r"depends on chance, .* \(in evaluation\), .*F\.dropout needs training=self\.training",
}


@pytest.mark.filterwarnings("ignore:.*spectral_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_a_network_that_keeps_something_is_refused_by_name(name: str, make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match=REFUSED[name]):
        preflight(make_experiment(model=own(name)))


@pytest.mark.parametrize("name", ["Remembering", "Dropping", "Chances", "Norms", "Held", "Single"])
def test_what_has_no_influence_passes(name: str, make_experiment: MakeExperiment) -> None:
    preflight(make_experiment(model=own(name)))
    preflight(make_experiment(model=own(name), algorithm=ProtoNet()))


@pytest.mark.parametrize("name", ["FunctionalNorm", "Attending"])
def test_a_network_that_mixes_a_batch_answers_no_query_alone(name: str, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(model=own(name), algorithm=MAML(inner_lr=0.1, batch_norm="inductive"))
    with pytest.raises(InputError, match="depends on the others of its batch, though batch_norm is 'inductive'"):
        preflight(experiment)
    preflight(replace(experiment, algorithm=MAML(inner_lr=0.1, batch_norm="transductive")))


def test_nothing_to_train_in_a_frozen_network(make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match="'maml' has nothing to train; every parameter of the network is frozen"):
        preflight(make_experiment(model=own("AllFrozen")))
