"""What items say, against sums by hand."""

import numpy as np
import pytest
import torch

from metaray.algorithms.context import Context
from metaray.algorithms.per_task import BASELINES
from metaray.data.preprocessing import ItemColumn, NumberColumn, TablePreprocessing
from metaray.episodes.tensors import Examples
from metaray.errors import InputError
from metaray.models.comparison import Comparison
from metaray.tasks import Binary, Regression, TaskKind

ITEM = ItemColumn(
    name="film",
    items=("a", "b"),
    sums=(9.0, 20.0),
    counts=(3, 5),
    global_mean=3.5,
    shrinkage=2.0,
    offset_shrinkage=4.0,
    mean_of_means=3.3,
    std_of_means=0.4,
)
MEANS = {"a": (9 + 2 * 3.5) / 5, "b": (20 + 2 * 3.5) / 7, "c": 3.5}
TABLE = TablePreprocessing(item=ITEM)


def predicted(name: str, known: str, y: list[float], asked: str, task: TaskKind) -> torch.Tensor:
    context = Context(network=Comparison(TABLE), ways=task.labels(1), task=task)
    support, query = (TABLE.normalize(torch.tensor(TABLE.read([[one] for one in films]))) for films in (known, asked))
    targets = task.read(y).y
    algorithm = BASELINES[name]
    return algorithm.predict({}, algorithm.adapt({}, Examples(support, targets), context), query, context)


@pytest.mark.parametrize("task", [Regression(), Regression(mean=3.0, std=2.0, judged_by="mae")])
def test_values(task: Regression) -> None:
    known, y, asked = "abc", [4.0, 5.0, 3.0], "acb"
    residual = sum(of - MEANS[film] for film, of in zip(known, y, strict=True))
    expected = {
        "global_mean": [3.5] * 3,
        "item_mean": [MEANS[film] for film in asked],
        "item_mean_and_offset": [MEANS[film] + residual / 3 for film in asked],
        "item_mean_and_shrunk_offset": [MEANS[film] + residual / 7 for film in asked],
    }
    assert task.item_baselines == tuple(expected)
    for name, values in expected.items():
        found = task.values(predicted(name, known, y, asked, task), flat=True)
        np.testing.assert_allclose(found, values, rtol=1e-6)


def test_shares_of_positives_are_logits() -> None:
    (name,) = Binary().item_baselines
    shares = TablePreprocessing(
        item=ItemColumn.parse({**dict(ITEM), "sums": (2.0, 4.0), "global_mean": 0.5}, where="t")
    )
    context = Context(network=Comparison(shares), ways=2, task=Binary())
    x = shares.normalize(torch.tensor(shares.read([["a"], ["b"]])))
    found = BASELINES[name].predict({}, {}, x, context).softmax(dim=1)[:, 1]
    torch.testing.assert_close(found, torch.tensor([3 / 5, 5 / 7]), rtol=1e-5, atol=0)


def test_a_table_without_items_is_refused() -> None:
    table = TablePreprocessing(numbers=(NumberColumn(name="a"),))
    context = Context(network=Comparison(table), ways=1, task=Regression())
    with pytest.raises(InputError, match="item means are of tables that have a column of items"):
        BASELINES["item_mean"].predict({}, {}, torch.zeros(2, 1), context)


@pytest.mark.parametrize("name", Regression.item_baselines)
def test_they_can_be_mapped_over(name: str) -> None:
    context = Context(network=Comparison(TABLE), ways=1, task=Regression())
    x, query, y = torch.randn(2, 6, 3), torch.randn(2, 4, 3), torch.randn(2, 6, 1)

    def run(one: torch.Tensor, of: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        adapted = BASELINES[name].adapt({}, Examples(TABLE.normalize(one), of), context)
        return BASELINES[name].predict({}, adapted, TABLE.normalize(other), context)

    alone = torch.stack([run(*each) for each in zip(x, y, query, strict=True)])
    torch.testing.assert_close(torch.vmap(run)(x, y, query), alone)
    assert BASELINES[name].kind == name
