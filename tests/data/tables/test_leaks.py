"""Columns that give the target away, and rows that are in two parts, are told; honest ones are not."""

from collections.abc import Callable

import numpy as np
import pytest

from metaray.data.tables.leaks import leaks
from tests.data.patients import MakeTable, patients


def told(make_table: MakeTable, change: Callable[[int, list[str]], list[str]], **options: object) -> tuple[str, ...]:
    """What is told of the patients with more rows, each row changed."""
    head, *rows = patients(groups=9, rows=40, binary=bool(options.get("binary")))
    table = make_table([head, *(change(i, row) for i, row in enumerate(rows))], **options)
    return leaks(table._open().file)


@pytest.mark.parametrize("binary", [False, True])
def test_honest_tables_are_not_suspected(make_table: MakeTable, binary: bool) -> None:
    generator = np.random.default_rng(1)
    assert (
        told(make_table, lambda _, row: [*row[:4], str(generator.choice(["red", "blue"])), row[5]], binary=binary) == ()
    )


def test_a_function_of_the_target(make_table: MakeTable) -> None:
    """Neither linear nor monotonic: a column that falls, then rises."""
    (note,) = told(make_table, lambda _, row: [*row[:3], f"{1 / float(row[5]):.9f}", *row[4:]])
    assert note.startswith("column 'dose' determines the target (") and "leave it out" in note


def test_a_trend_within_each_group(make_table: MakeTable) -> None:
    """The target moves evenly with the day, from where each patient begins."""

    def change(_: int, row: list[str]) -> list[str]:
        group, day = int(row[0][1:]), float(row[1])
        return [*row[:3], str(day), row[4], f"{(group * 7919 % 13) * 3 + day / 10:.4f}"]

    notes = told(make_table, change)
    assert [note for note in notes if note.startswith("column 'dose' determines the target within a group (")]


def test_labels_given_away(make_table: MakeTable) -> None:
    notes = told(make_table, lambda _, row: [*row[:3], f"{float(row[5]) + 2}", *row[4:]], binary=True)
    assert [note.split("'")[1] for note in notes if "determines" in note] == [
        "dose",
        "colour",
    ]  # colours go by the row, as labels do


def test_categories_that_give_the_target_away(make_table: MakeTable) -> None:
    notes = told(make_table, lambda i, row: [*row[:4], "abc"[i % 3], str(i % 3)])
    assert [note.split("'")[1] for note in notes] == ["colour"]


def test_the_same_rows_in_two_parts(make_table: MakeTable) -> None:
    head, *rows = patients()
    copied = [["p8", *row[1:]] for row in rows if row[0] in ("p1", "p8")]
    table = make_table([head, *rows, *copied])
    assert leaks(table._open().file) == ("8 rows of meta-test (inputs and target) also occur in meta-train",)
