"""Networks of the user's own."""

import pytest
import torch
from torch import nn

from metaray.errors import InputError
from metaray.imports import dump_kind, parse_kind
from metaray.models import MODELS, Custom, Model
from metaray.models.batch_norm import EpisodicBatchNorm


class Own(nn.Module):
    def __init__(self, *, feature_shape: tuple[int, ...], outputs: int | None, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.BatchNorm1d(width))
        self.body(torch.zeros(2, *feature_shape))
        self.head = nn.Linear(width, outputs or 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.body(x))
        return result


def no_module(*, feature_shape: tuple[int, ...], outputs: int | None) -> str:
    return f"{feature_shape} {outputs}"


def from_file(*, feature_shape: tuple[int, ...], outputs: int | None) -> nn.Module:
    network = Own(feature_shape=feature_shape, outputs=outputs)
    network.load_state_dict(torch.load("no/weights"))
    return network


PATH = f"{__name__}:Own"


def test_it_is_built_and_loses_its_running_statistics() -> None:
    network = Custom(path=PATH, options={"width": 6}).build((1, 2, 2), 3)
    assert isinstance(network.get_submodule("body.2"), EpisodicBatchNorm)
    assert network.get_parameter("head.weight").shape == (3, 6)


def test_what_it_reads_may_be_gone() -> None:
    with pytest.raises(InputError, match=r"test_custom:from_file cannot be built: FileNotFoundError: .*no/weights"):
        Custom(path=f"{__name__}:from_file").build((4,), 2)


def test_it_round_trips() -> None:
    model = Custom(path=PATH, options={"width": 6})
    tree = dump_kind(model, MODELS)
    assert tree == {"kind": "custom", "path": PATH, "options": {"width": 6}}
    assert parse_kind(tree, MODELS, Model, what="model") == model


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("Own", "'Own' is not an import path; write it as 'package.module:Name'"),
        ("no_such_package_here.models:Net", "cannot import 'no_such_package_here.models'"),
        (f"{__name__}:Owm", "Did you mean 'Own'"),
    ],
)
def test_paths_that_lead_nowhere(path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_kind({"kind": "custom", "path": path}, MODELS, Model, what="model")


def test_from_an_artifact_only_with_trust() -> None:
    tree = {"kind": "custom", "path": PATH}
    with pytest.raises(InputError, match=rf"refusing to import '{PATH}': .* trust=\['{__name__}'\]"):
        parse_kind(tree, MODELS, Model, what="model", trust=())
    with pytest.raises(InputError, match="refusing"):
        parse_kind(tree, MODELS, Model, what="model", trust=("another",))
    assert isinstance(parse_kind(tree, MODELS, Model, what="model", trust=(__name__,)), Custom)


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(InputError, match="returned str, not a torch.nn.Module"):
        Custom(path=f"{__name__}:no_module").build((4,), 2)
    with pytest.raises(InputError, match="heigth"):
        Custom(path=PATH, options={"heigth": 6}).build((4,), 2)
