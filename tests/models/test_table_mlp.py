"""The network for rows of tables: what it has for each column, and what other networks say of such rows."""

import pytest
import torch

from metaray.data.preprocessing import CategoryColumn, ItemColumn, LabelsColumn, NumberColumn, TablePreprocessing
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


FILMS = TablePreprocessing(
    numbers=(NumberColumn(name="year"),),
    categories=(CategoryColumn(name="colour", categories=("blue", "red")),),
    labels=(LabelsColumn(name="genres", separator="|", labels=("Comedy", "War")),),
    item=ItemColumn(
        name="film",
        items=("a", "b", "c"),
        sums=(1.0, 2.0, 3.0),
        counts=(1, 1, 1),
        global_mean=2.0,
        shrinkage=1.0,
        offset_shrinkage=1.0,
    ),
)
"""Compact: year, colour, Comedy, War, mean, number, code."""


def test_labels_and_items_are_numbers_and_an_embedding_if_asked() -> None:
    without, network = built(TableMLP(hidden=(5,)), FILMS), built(TableMLP(hidden=(5,), item_embedding=4), FILMS)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    assert shapes["body.items.weight"] == (4, 4) and shapes["body.layers.0.weight"] == (5, 1 + 3 + 2 + 2 + 4)
    assert "body.items.weight" not in dict(without.named_parameters())
    row = torch.tensor([[0.5, 1.0, 1.0, 0.0, 0.3, -0.2, 2.0]])
    with torch.no_grad():
        network.get_parameter("body.items.weight")[1:] = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    first = network(FILMS.normalize(row))
    for place, other in enumerate((0.0, 2.0, 0.0, 1.0, 0.0, 0.0, 3.0)):
        changed = row.clone()
        changed[0, place] = other
        assert not torch.equal(network(FILMS.normalize(changed)), first), place
    changed = row.clone()
    changed[0, -1] = 3
    assert torch.equal(without(FILMS.normalize(changed)), without(FILMS.normalize(row)))


def test_items_that_meta_train_has_not_have_no_embedding() -> None:
    network = built(TableMLP(hidden=(5,), item_embedding=4), FILMS)
    network(FILMS.normalize(torch.tensor([[0.5, 1.0, 1.0, 0.0, 0.3, -0.2, 0.0]]))).sum().backward()
    gradient = network.get_parameter("body.items.weight").grad
    assert gradient is not None and not gradient.any()


def test_their_probe_is_valid() -> None:
    network, x = built(TableMLP(item_embedding=4), FILMS), torch.tensor(FILMS.probe(9))
    assert set(x[:, 2:4].flatten().tolist()) == {0, 1} and set(x[:, -1].tolist()) == {0, 1, 2, 3}
    assert network(FILMS.normalize(x)).shape == (9, 2) and FILMS.comparable(FILMS.normalize(x)).shape == (9, 1 + 3 + 4)
