"""What is found out before anything expensive starts."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from metaray.algorithms import MAML, NearestNeighbor, ProtoNet
from metaray.errors import InputError
from metaray.models import Conv4, Custom
from metaray.training.experiment import Evaluation, Experiment
from metaray.training.preflight import preflight

MakeExperiment = Callable[..., Experiment]


class Outputs(nn.Module):
    """As many outputs as it is told, or something worse."""

    def __init__(self, *, feature_shape: tuple[int, ...], outputs: int | None, shape: str) -> None:
        super().__init__()
        self.body = nn.Linear(feature_shape[-1], 4)
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.body(x)
        if self.shape == "raises":
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return found if self.shape == "image" else found.mean(dim=(1, 2))


def custom(shape: str) -> Custom:
    return Custom(path=f"{__name__}:Outputs", options={"shape": shape})


@pytest.mark.parametrize("algorithm", [MAML(), MAML(inner_steps=0), MAML(batch_norm="inductive"), ProtoNet()])
@pytest.mark.parametrize("workers", [0, 4])
def test_what_is_right_passes(algorithm: MAML | ProtoNet, workers: int, make_experiment: MakeExperiment) -> None:
    preflight(make_experiment(algorithm=algorithm, model=Conv4(channels=4)), workers=workers)


def test_more_workers_than_episodes(make_experiment: MakeExperiment) -> None:
    with pytest.raises(
        InputError, match="5 workers for a meta-batch of 4: .* lower --workers or raise meta_batch_size"
    ):
        preflight(make_experiment(), workers=5)


@pytest.mark.parametrize(
    ("split", "spec"), [("meta-train", {"ways": 13}), ("meta-val", {"ways": 9}), ("meta-val", {"shots": 11})]
)
def test_a_split_that_is_too_small(split: str, spec: dict[str, int], make_experiment: MakeExperiment) -> None:
    full = {"ways": 3, "shots": 1, "queries": 2, **spec}
    judged = Evaluation.parse({"episodes": {**full, "ways": 3} if split == "meta-train" else full}, where="e")
    episodes = full if split == "meta-train" else {"ways": 3, "shots": 1, "queries": 2}
    with pytest.raises(InputError, match=f"{full['ways']} ways asked for, but {split} has"):
        preflight(make_experiment(algorithm=ProtoNet(), episodes=episodes, evaluation=judged))


def test_outputs_that_do_not_match_the_ways(make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match=r"shape \[2, 4\], but maml needs \[2, 3\] \(one output for each of 3 ways\)"):
        preflight(make_experiment(model=custom("flat")))
    preflight(make_experiment(model=custom("flat"), algorithm=ProtoNet()))
    with pytest.raises(InputError, match=r"shape \[2, 1, 16, 4\], but protonet needs \[2, embedding\]"):
        preflight(make_experiment(model=custom("image"), algorithm=ProtoNet()))


def test_a_model_that_cannot_take_the_inputs(make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match=r"cannot take a batch of shape \(2, 1, 16, 16\) from this source: mat1"):
        preflight(make_experiment(model=custom("raises")))


def test_nothing_to_train(make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match="algorithm 'nearest_neighbor' has nothing to train"):
        preflight(make_experiment(algorithm=NearestNeighbor()))


def test_patterns_that_fit_no_parameter(make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match=r"'haed\.\*' fits no parameter"):
        preflight(make_experiment(algorithm=MAML(inner_lr={"haed.*": 0.1, "*": 0.1})))
