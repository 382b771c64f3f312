"""What is found out before anything expensive starts."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from metaray.algorithms import MAML, NearestNeighbor, ProtoNet
from metaray.data.function_family import FunctionFamily
from metaray.episodes.augmentation import Augmentation
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.models import MLP, Conv4, Custom
from metaray.training.checks.preflight import check_shares, preflight

MakeExperiment = Callable[..., Experiment]
CPU = torch.device("cpu")


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


TRANSDUCTIVE = {"batch_norm": "transductive"}


@pytest.mark.parametrize(
    "algorithm", [MAML(**TRANSDUCTIVE), MAML(inner_steps=0, **TRANSDUCTIVE), MAML(), ProtoNet(**TRANSDUCTIVE)]
)
def test_what_is_right_passes(algorithm: MAML | ProtoNet, make_experiment: MakeExperiment) -> None:
    preflight(make_experiment(algorithm=algorithm, model=Conv4(channels=4)))


def test_what_is_augmented_must_be_images(
    make_experiment: Callable[..., Experiment], make_waves: Callable[..., Experiment]
) -> None:
    preflight(make_experiment(augmentation=Augmentation(flip=True)))
    with pytest.raises(InputError, match="augmentation alters images, but .* another kind \\(vector\\)"):
        preflight(make_waves(augmentation=Augmentation(flip=True)))
    with pytest.raises(InputError, match="augmentation.crop_padding=16 would leave nothing"):
        preflight(make_experiment(augmentation=Augmentation(crop_padding=16)))


def test_more_workers_than_chunks(make_experiment: MakeExperiment) -> None:
    for workers in (0, 1, 4):
        check_shares(make_experiment(), workers, CPU)
    told = (
        "5 workers for a meta-batch of 4 in 4 chunks of 1 episode: each worker needs at least one chunk a step; "
        "lower --workers or raise meta_batch_size to 5"
    )
    with pytest.raises(InputError, match=told):
        check_shares(make_experiment(), 5, CPU)
    check_shares(make_experiment(meta_batch_size=7, chunk_size=2), 4, CPU)
    told = "5 workers for a meta-batch of 7 in 4 chunks of 2 episodes: .* lower --workers or set chunk_size=1"
    with pytest.raises(InputError, match=told):
        check_shares(make_experiment(meta_batch_size=7, chunk_size=2), 5, CPU)
    with pytest.raises(
        InputError, match="2 workers for a meta-batch of 3 in 1 chunk of 3 episodes: .* set chunk_size=2"
    ):
        check_shares(make_experiment(meta_batch_size=3, chunk_size=9), 2, CPU)


def test_gpus_have_larger_chunks(make_experiment: MakeExperiment) -> None:
    gpu = torch.device("cuda")
    check_shares(make_experiment(meta_batch_size=32), 1, gpu)
    told = "2 workers for a meta-batch of 32 in 1 chunk of 32 episodes: .* lower --workers or set most_workers=2"
    with pytest.raises(InputError, match=told):
        check_shares(make_experiment(meta_batch_size=32), 2, gpu)
    check_shares(make_experiment(meta_batch_size=32, most_workers=2), 2, gpu)
    with pytest.raises(InputError, match="5 workers for a meta-batch of 32 in 4 chunks of 8 episodes"):
        check_shares(make_experiment(meta_batch_size=32, most_workers=4), 5, gpu)
    check_shares(make_experiment(meta_batch_size=32, chunk_size=1), 32, gpu)


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


def test_outputs_that_do_not_match_the_target(make_experiment: MakeExperiment) -> None:
    """A network that takes no notice of how many outputs it is asked for."""
    spec = EpisodeSpec(ways=1, shots=4, queries=4)
    lines = make_experiment(source=FunctionFamily(), model=custom("image"), episodes=spec)
    told = r"shape \[2, 4\], but maml needs \[2, 1\] \(one output for each value of a target\)"
    with pytest.raises(InputError, match=told):
        preflight(lines)


def test_a_model_that_cannot_take_the_inputs(make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match=r"cannot take a batch of shape \(2, 1, 16, 16\) from this source: mat1"):
        preflight(make_experiment(model=custom("raises")))


def test_nothing_to_train(make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match="algorithm 'nearest_neighbor' has nothing to train"):
        preflight(make_experiment(algorithm=NearestNeighbor()))


def test_patterns_that_fit_no_parameter(make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match=r"'haed\.\*' fits no parameter"):
        preflight(make_experiment(algorithm=MAML(inner_lr={"haed.*": 0.1, "*": 0.1})))


def test_a_query_set_that_cannot_be_normalised(make_experiment: MakeExperiment) -> None:
    lines: dict[str, object] = {"source": FunctionFamily(), "model": MLP(hidden=(4,))}
    judged = Evaluation(episodes=EpisodeSpec(ways=1, shots=4, queries=1))
    with pytest.raises(InputError, match="batch norm over a single example"):
        preflight(make_experiment(episodes=EpisodeSpec(ways=1, shots=4, queries=4), evaluation=judged, **lines))
    inductive = MAML(batch_norm="inductive")
    preflight(make_experiment(episodes=judged.episodes, evaluation=judged, algorithm=inductive, **lines))
