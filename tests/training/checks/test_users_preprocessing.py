"""What a preprocessing of a user's own may say that is not so, and networks that take padding for data."""

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms.context import Context
from metaray.data.preprocessing import Compact, ImagePreprocessing, Preprocessing, mask_of
from metaray.errors import InputError
from metaray.training.checks.users_preprocessing import check_preprocessing


class Sets(Preprocessing):
    kind: ClassVar[str] = "sets"
    how: str = "well"

    @property
    def feature_shape(self) -> tuple[None, int]:
        return (None, 2)

    def probe(self, count: int, seed: int = 0) -> Compact:
        if self.how == "another shape":
            return np.zeros((count, 8, 2), dtype=np.float32)
        found = super().probe(count, seed)
        return {**found, "values": found["values"].astype(np.float64)} if self.how == "another type" else found

    def normalize(self, x: dict[str, Tensor]) -> dict[str, Any]:
        values = x["values"][:2] if self.how == "fewer" else x["values"]
        return {"points": values, "mask": mask_of(x)}

    def comparable(self, x: dict[str, Tensor]) -> Any:
        if self.how == "one number":
            return x["points"].sum((1, 2))
        return x["points"].flatten(1) if self.how == "padding" else x["points"].sum(1)


class Net(nn.Module):
    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.points, self.masked = nn.Linear(2, 3), masked

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        points = torch.tanh(self.points(x["points"]))
        mask = x["mask"][..., None].float() if self.masked else torch.ones_like(points)
        found: Tensor = (points * mask).sum(1) / mask.sum(1)
        return found


def check(preprocessing: Preprocessing, network: nn.Module) -> None:
    check_preprocessing(Context(network=network, ways=2), preprocessing)


def test_what_is_right() -> None:
    check(Sets(), Net(masked=True))
    check(ImagePreprocessing(height=2, width=2), nn.Flatten())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("another shape", r"probe\(4\) must give 4 compact examples, float32 of shape \(any, 2\), as read does"),
        ("another type", r"probe\(4\) must give 4 compact examples, float32"),
        ("fewer", r"normalize made points \(2, 8, 2\), mask \(4, 8\) of 4 examples"),
        ("one number", r"comparable must give one vector an input, \[4, numbers\] of 4 inputs \(got \(4,\)\)"),
        ("padding", "what comparable gives depends on how far inputs are padded"),
    ],
)
def test_what_is_not_so(how: str, message: str) -> None:
    with pytest.raises(InputError, match=f"preprocessing 'sets': {message}"):
        check(Sets(how=how), Net(masked=True))


def test_a_network_that_forgets_the_mask() -> None:
    with pytest.raises(InputError, match=r"depends on how far it is padded \(up to .*Leave out what the mask"):
        check(Sets(), Net(masked=False))
