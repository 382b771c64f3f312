"""Numbers by rank, where a few cells lie far off; and what an import advises."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from metaray.data.episode_spec import EpisodeSpec
from metaray.data.group_table import GroupTable
from metaray.data.preprocessing import NumberColumn, TablePreprocessing
from metaray.data.preprocessing.number_column import normal_scores
from metaray.data.table_description import described
from metaray.data.tables import fitting
from metaray.imports import dump_kind, parse_kind
from tests.data.patients import Lines, MakeTable, patients


def heavy() -> Lines:
    """Doses are exponentials of 4 times a normal number: a few are most of their sum. One is missing."""
    lines = [list(line) for line in patients(rows=40)]
    for line in lines[1:]:
        line[3] = f"{np.exp(4 * float(line[3])):.6g}"
    lines[5][3] = ""
    return lines


def test_normal_scores_are_those_of_the_ranks() -> None:
    """Of a monotone function of normal numbers they are these again; far values have the outermost score."""
    drawn = np.random.default_rng(0).standard_normal(5000)
    quantiles = np.quantile(np.exp(drawn), np.linspace(0, 1, 201)).tolist()
    inner = np.abs(drawn) < 2
    np.testing.assert_allclose(normal_scores(np.exp(drawn), quantiles)[inner], drawn[inner], atol=0.1)
    low, high, none = normal_scores(np.array([-1e9, 1e9, np.nan]), quantiles)
    assert low == pytest.approx(-high) and 2.7 < high < 2.9 and np.isnan(none)
    assert normal_scores(np.array([3.0, 4.0]), [3.0] * 201).tolist() == pytest.approx([0, 0], abs=1e-9)
    # Two values, 120 and 81 of 201 quantiles: the mean ranks of either lie at 0.2985 and 0.7985.
    assert normal_scores(np.array([0.0, 1.0]), [0.0] * 120 + [1.0] * 81) == pytest.approx([-0.5287, 0.8363], abs=1e-4)


def test_a_column_of_far_values(make_table: MakeTable) -> None:
    """Standardised, most cells are alike; by rank, they spread as normal numbers, of meta-train alone."""
    standard = make_table(heavy())._open().file.x[:, 1]
    assert np.ptp(np.quantile(standard, [0.1, 0.9])) < 0.5
    ranked = make_table(heavy(), scaling="quantile")
    x = ranked._open().file.x[:, 1]
    assert 2.2 < np.ptp(np.quantile(x, [0.1, 0.9])) < 2.9 and np.abs(x).max() < 2.9
    dose = ranked.preprocessing.numbers[1]
    of_train = [float(line[3]) for line in heavy()[1:] if line[0] in ("p0", "p1", "p2", "p3", "p4") and line[3]]
    assert dose.quantiles[0] == min(of_train) and dose.quantiles[-1] == max(of_train) and dose.missing
    read = ranked.preprocessing.read({"age": [50, 50], "dose": [1e300, None], "colour": ["red", "red"]})
    assert isinstance(read, np.ndarray) and read[0, 1] == np.float32(2.8086400) and read[1, 1] == 0


def test_quantiles_do_not_depend_on_batches(make_table: MakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are drawn by their number alone, also where there are more of them than are ranked."""
    monkeypatch.setattr(fitting, "RANKED_ROWS", 50)
    whole = make_table(heavy(), scaling="quantile").preprocessing
    monkeypatch.setattr("metaray.data.tables.raw_table.BLOCK_BYTES", 300)
    small = make_table(heavy(), scaling="quantile").preprocessing
    assert [one.quantiles for one in small.numbers] == [one.quantiles for one in whole.numbers]


def test_the_scaling_is_of_the_preprocessing(make_table: MakeTable) -> None:
    """It comes back from JSON; files that were standardised say nothing new."""
    from metaray.data.preprocessing import PREPROCESSINGS, Preprocessing

    for scaling in ("standard", "quantile"):
        prepared = make_table(heavy(), scaling=scaling).preprocessing
        tree = dump_kind(prepared, PREPROCESSINGS)
        assert ("quantiles" in str(tree)) == (scaling == "quantile")
        assert parse_kind(tree, PREPROCESSINGS, Preprocessing, what="preprocessing") == prepared
    with pytest.raises(ValidationError, match="quantiles of 'a': give at least 3 numbers in rising order"):
        NumberColumn(name="a", quantiles=(1.0, 3.0, 2.0))
    assert isinstance(prepared, TablePreprocessing)


def notes(table: GroupTable) -> tuple[str, ...]:
    return described(Path(table.path), EpisodeSpec(shots=2, queries=2)).notes


def test_advice(make_table: MakeTable) -> None:
    """Far cells are told of while they are standardised, and levels of groups that hide what varies within them."""
    far = [note for note in notes(make_table(heavy())) if "standard deviations off, in dose: --scaling quant" in note]
    assert len(far) == 1
    assert not [note for note in notes(make_table(heavy(), scaling="quantile")) if "--scaling" in note]
    assert not [note for note in notes(make_table()) if "centred" in note or "--scaling" in note]
    levels = [
        [*line[:5], f"{100 * int(line[0][1:]) + float(line[3]):.4f}"] if i else line
        for i, line in enumerate(patients())
    ]
    table = make_table(levels)
    (note,) = [note for note in notes(table) if "centred" in note]
    assert note.startswith("100% of the target's variance lies between groups: ")
    within = float(note.rpartition("=")[2])
    y = [table._open().file.targets(g, table._open().file.rows(g)) for g in range(5)]
    assert within == pytest.approx(np.concatenate([one - one.mean() for one in y]).std(), rel=1e-3)
