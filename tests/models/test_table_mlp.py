"""The network for rows of tables: what it has for each column, and what other networks say of such rows."""

import pytest
import torch

from metaray.data.preprocessing import CategoryColumn, NumberColumn, TablePreprocessing
from metaray.errors import InputError
from metaray.models import MLP, MODELS, TableMLP
from metaray.models.model import build_seeded

MIXED = TablePreprocessing(
    numbers=(NumberColumn(name="age", missing=True), NumberColumn(name="dose")),
    categories=(
        CategoryColumn(name="colour", categories=("blue", "red")),
        CategoryColumn(name="id", categories=tuple("abcdefghijk")),
    ),
)
PLAIN = TablePreprocessing(numbers=(NumberColumn(name="a"), NumberColumn(name="b")))


def built(model: TableMLP, table: TablePreprocessing, outputs: int | None = 2) -> torch.nn.Module:
    return build_seeded(model, table.feature_shape, outputs, seed=0, preprocessing=table)


def test_it_embeds_each_column_of_categories() -> None:
    network = built(TableMLP(hidden=(5,), embedding=8), MIXED)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    assert shapes["body.embeddings.0.weight"] == (3, 3) and shapes["body.embeddings.1.weight"] == (12, 8)
    assert shapes["body.layers.0.weight"] == (5, 2 + 1 + 3 + 8) and shapes["head.weight"] == (2, 5)


def test_each_part_of_a_row_matters() -> None:
    network = built(TableMLP(hidden=(16,)), MIXED)
    row = torch.tensor([[0.5, -1.0, 0, 1, 3]])
    first = network(MIXED.normalize(row))
    for place, other in ((0, 0.0), (1, 0.0), (2, 1.0), (3, 0.0), (4, 11.0)):
        changed = row.clone()
        changed[0, place] = other
        assert not torch.equal(network(MIXED.normalize(changed)), first)


def test_plain_numbers_are_one_tensor() -> None:
    network, other = (
        built(TableMLP(hidden=(4,)), PLAIN),
        build_seeded(MLP(hidden=(4,), batch_norm=False), (2,), 2, seed=0),
    )
    x = torch.randn(3, 2)
    assert torch.equal(network(PLAIN.normalize(x)), other(x))
    assert built(TableMLP(hidden=()), PLAIN, None)(x).shape == (3, 2) and MODELS["table_mlp"] is TableMLP


def test_other_networks_say_what_to_take() -> None:
    with pytest.raises(InputError, match="takes one tensor of numbers, but this table also has categories or missing"):
        build_seeded(MLP(), MIXED.feature_shape, 2, seed=0, preprocessing=MIXED)
    build_seeded(MLP(), PLAIN.feature_shape, 2, seed=0, preprocessing=PLAIN)
