"""Items of a table: their means and numbers, counted by hand, and never by what is to be predicted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaray.config import replace
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.preprocessing import ItemColumn
from metaray.data.table_description import described
from metaray.data.tables import items
from metaray.data.tables.items import MOST_SHRINKAGE, shrinkage
from metaray.data.tables.leaks import leaks
from metaray.data.tables.table_file import read_table
from metaray.errors import InputError
from tests.data.patients import Lines
from tests.data.ratings import GENRES, SPLITS, imported, ratings


def of(lines: Lines, users: list[str], film: str) -> list[float]:
    return [float(line[4]) for line in lines[1:] if line[0] in users and line[1] == film]


def column_of(path: Path) -> ItemColumn:
    found = read_table(path).meta.preprocessing.item
    assert found is not None
    return found


def test_items_are_told_by_meta_train_alone(tmp_path: Path) -> None:
    table, lines = imported(tmp_path), ratings()
    item = column_of(Path(table.path))
    assert item.items == ("m1", "m2", "m3", "m4") and item.counts == (12,) * 4
    for film, total in zip(item.items, item.sums, strict=True):
        assert total == pytest.approx(sum(of(lines, SPLITS["meta-train"], film)))
    every = [rating for film in item.items for rating in of(lines, SPLITS["meta-train"], film)]
    assert item.global_mean == pytest.approx(np.mean(every))
    assert table.meta.version == 2 and table.preprocessing.feature_shape == (3 + 3,)


@pytest.mark.parametrize("user", ["u3", "u8"])
def test_a_row_does_not_see_the_targets_of_its_own_group(tmp_path: Path, user: str) -> None:
    table, lines = imported(tmp_path), ratings()
    item, file = column_of(Path(table.path)), table._open().file
    rows = file.x[file.rows(table.meta.groups.index(user))]
    others = [one for one in SPLITS["meta-train"] if one != user]
    films = [line[1] for line in lines[1:] if line[0] == user]
    for row, film in zip(rows, films, strict=True):
        known = of(lines, others, film)
        mean = (sum(known) + item.shrinkage * item.global_mean) / (len(known) + item.shrinkage)
        assert row[3] * item.std_of_means + item.mean_of_means == pytest.approx(mean, abs=1e-5)
        assert row[4] * item.std_of_logs + item.mean_of_logs == pytest.approx(np.log1p(len(known)), abs=1e-5)
        assert row[5] == (0 if film == "m5" else int(film[1]))
        assert row[:3].tolist() == [label in GENRES[film] for label in ("Comedy", "Drama", "War")]


def test_other_targets_of_a_group_do_not_change_its_inputs(tmp_path: Path) -> None:
    """What would leak: the rows of u2 are the same, whatever u2 thinks."""
    before = imported(tmp_path)
    rows = before._open().file.x[before._open().file.rows(2)].copy()
    lines = [[*line[:4], "1.0"] if line[0] == "u2" and line[1] == "m1" else line for line in ratings()]
    (tmp_path / "other").mkdir()
    after = imported(tmp_path / "other", lines)
    item, other = column_of(Path(before.path)), column_of(Path(after.path))
    of_them = after._open().file.x[after._open().file.rows(2)]
    alike = replace(other, shrinkage=item.shrinkage, global_mean=item.global_mean)
    assert alike.sums[0] != item.sums[0] and alike.counts == item.counts
    np.testing.assert_array_equal(of_them[:, 5], rows[:, 5])
    means = [
        rows[:, 3] * item.std_of_means + item.mean_of_means,
        of_them[:, 3] * other.std_of_means + other.mean_of_means,
    ]
    sums = [
        mean * (10 + one.shrinkage) - one.shrinkage * one.global_mean
        for mean, one in zip(means, (item, other), strict=True)
    ]
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-4)


def test_raw_rows_are_those_of_the_file(tmp_path: Path) -> None:
    table, lines = imported(tmp_path), ratings()
    file = table._open().file
    raw = [{"film": line[1], "genres": line[2]} for line in lines[1:] if line[0] == "u9"]
    np.testing.assert_allclose(table.preprocessing.read(raw), file.x[file.rows(9)], rtol=1e-6)
    unknown = table.preprocessing.read([{"film": None, "genres": "Western"}, {"film": "m9", "genres": None}])
    assert (unknown[:, :3] == 0).all() and (unknown[:, 5] == 0).all() and np.ptp(unknown[:, 3]) == 0


def test_variances_within_and_between() -> None:
    generator = np.random.default_rng(0)
    codes = np.repeat(np.arange(400), generator.integers(1, 40, 400))
    values = generator.normal(0, 0.5, 400)[codes] + generator.normal(0, 1.5, len(codes))
    assert shrinkage(values, codes) == pytest.approx(9, rel=0.25)
    assert shrinkage(values, np.arange(len(values))) == MOST_SHRINKAGE
    assert shrinkage(np.array([1.0, 1, 5, 5]), np.array([0, 0, 3, 3])) == 0


def test_items_of_one_row_each_say_nothing(tmp_path: Path) -> None:
    lines = [[line[0], f"{line[1]}{i}", *line[2:]] if i else line for i, line in enumerate(ratings())]
    item = column_of(Path(imported(tmp_path, lines).path))
    assert item.shrinkage == MOST_SHRINKAGE
    assert item.means(item.look_up(["m11", "m5"])) == pytest.approx([item.global_mean] * 2, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"item": "movie"}, "--item: unknown column 'movie'"),
        ({"item": "user"}, "--item: 'user' is no column to predict from here"),
        ({"categorical": ["film"]}, "--item: 'film' is no column to predict from here, or is one of other options"),
        ({"labels": {"film": "|"}}, "--item: 'film' is no column"),
        ({"labels": {"genre": "|"}}, "--labels: unknown column 'genre'. Did you mean 'genres'"),
        ({"wide": True, "tasks": ["user", "when", "rating"], "target": None, "order_by": None}, "--item: in wide form"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        imported(tmp_path, **options)
    assert not (tmp_path / "ratings.arrow").exists()


def test_bad_items_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [[line[0], "" if line[0] in SPLITS["meta-train"] else line[1], *line[2:]] for line in ratings()]
    with pytest.raises(InputError, match="--item: 'film' is empty in all rows of meta-train"):
        imported(tmp_path, lines)
    monkeypatch.setattr(items, "MOST_ITEMS", 3)
    with pytest.raises(InputError, match="'film' has more than 3 items"):
        imported(tmp_path)


def test_many_labels_are_the_frequent_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaray.data.tables.fitting.MOST_LABELS", 2)
    (column,) = imported(tmp_path).preprocessing.labels
    assert column.labels == ("Comedy", "Drama")  # War has half as many rows


def test_a_description_tells_items(tmp_path: Path) -> None:
    path = Path(imported(tmp_path).path)
    found = described(path, EpisodeSpec(shots=3, queries="rest"), verify=True)
    assert [(one.name, one.holds, one.values) for one in found.columns] == [
        ("genres", "labels", "3"),
        ("film", "items", "4"),
    ]
    assert found.items is not None and found.items.rows_an_item == "12 / 12 / 12"
    assert found.items.unknown == {"meta-train": 0, "meta-val": 0, "meta-test": pytest.approx(2 / 18)}
    assert found.items.lines[1] == "rows whose item meta-train has not: 0.0% of meta-val, 11.1% of meta-test"
    assert found.to_dict()["items"]["items"] == 4 and not leaks(read_table(path))


def test_tables_without_items_are_as_before(tmp_path: Path) -> None:
    meta = imported(tmp_path, item=None, labels=None).meta
    tree = meta.model_dump(mode="json")
    assert tree["preprocessing"].keys() == {"numbers", "categories"}
