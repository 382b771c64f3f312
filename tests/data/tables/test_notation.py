"""CSV files as they are written elsewhere: semicolons, decimal commas, quotes, dates, and what is refused of them."""

from pathlib import Path

import numpy as np
import pytest

from metaray.data.group_table import GroupTable
from metaray.data.tables.importing import import_table
from metaray.data.tables.notation import cells_of, comma_hint, delimiter_of, with_point
from metaray.data.tables.table_file import TableFile, read_table
from metaray.errors import InputError
from tests.data.patients import SPLITS, MakeTable, patients


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3,5", 3.5),
        (" -3,5 ", -3.5),
        ("1.234,5", 1234.5),
        ("12.345.678", 12345678),
        ("1.234", 1234),
        (",5", 0.5),
        ("7", 7),
        ("2,5e-3", 0.0025),
    ],
)
def test_decimal_commas(text: str, number: float) -> None:
    assert float(with_point(text, ",")) == pytest.approx(number)
    assert with_point(text, ".") == text


@pytest.mark.parametrize("text", ["1.5", "12.3456", "1,2,3", "1.23,4", "a", "", "-", ",", "1.234.5", ".5", "1e5.0"])
def test_what_is_no_number_with_a_decimal_comma(text: str) -> None:
    with pytest.raises(ValueError, match="could not convert"):
        float(with_point(text, ","))


def test_hints_and_headers() -> None:
    assert "--decimal ','" in comma_hint("1.234,5", ".") and not comma_hint("3,5", ",")
    assert not any(comma_hint(text, ".") for text in ("high", "3.5", "a,5", "1,2,3", ""))
    assert delimiter_of('"a, b, c";d') == ";" and cells_of('"a, b, c"; d ') == ["a, b, c", "d"]
    assert cells_of("a\tb,c\td") == ["a", "b,c", "d"] and cells_of("alone") == ["alone"]


def german(path: Path, *, day: str = "2024-01-{:02d}") -> Path:
    """The patients as a spreadsheet in German writes them: a mark in front, semicolons, commas, quotes, CRLF."""
    rows = patients()[1:]
    lines = [["Fall", "Patient", "Tag", "Größe, cm", "Dosis", "Farbe", "Wert"]]
    for i, (patient, number, age, dose, colour, score) in enumerate(rows):
        tag = day.format(int(number) - 92)
        lines.append([str(i), patient, tag, age.replace(".", ","), f'"{dose.replace(".", ",")}"', colour, ""])
        lines[-1][-1] = score.replace(".", ",") if i != 3 else ""
    lines[0][3] = '"Größe, cm"'
    path.write_bytes("\r\n".join(";".join(line) for line in lines).encode("utf-8-sig"))
    return path


def imported(csv: Path, **options: object) -> tuple[TableFile, tuple[str, ...]]:
    given: dict[str, object] = {"tasks": ["Patient"], "target": "Wert", "splits": SPLITS, "decimal": ","}
    report = import_table(csv, csv.with_suffix(".arrow"), **given | options)  # type: ignore[arg-type]
    return read_table(report.path), report.notes


def test_a_german_file_is_the_same_table(tmp_path: Path, make_table: MakeTable) -> None:
    lines = patients()
    lines[4][5] = ""
    expected = make_table(lines)._open().file
    file, notes = imported(german(tmp_path / "g.csv"), leave_out=["Fall", "Tag"])
    assert [column.name for column in file.meta.preprocessing.numbers] == ["Größe, cm", "Dosis"]
    assert notes[0] == "1 row without a target left out"
    np.testing.assert_array_equal(file.x, expected.x)
    np.testing.assert_array_equal(file.y, expected.y)


def test_decimal_commas_are_told_of(tmp_path: Path) -> None:
    """A column of them would be taken for one of categories; nothing is guessed."""
    csv = german(tmp_path / "g.csv")
    with pytest.raises(InputError, match=r"row 1: Größe, cm is '\d+,\d+'; if that is a decimal comma, say --decimal '"):
        imported(csv, decimal=".")
    with pytest.raises(InputError, match=r"row 1: Wert is .*, but it is the target; if that is a decimal comma, say"):
        imported(csv, decimal=".", leave_out=["Größe, cm", "Dosis"])


def test_numbers_of_rows_and_dates_are_told_of(tmp_path: Path) -> None:
    _, notes = imported(german(tmp_path / "g.csv"))
    assert "'Fall' counts the rows: --leave-out 'Fall'" in notes
    assert any(note.startswith("'Tag' holds dates, which are categories that rows of later days") for note in notes)


def test_dates_order_rows_where_the_year_is_first(tmp_path: Path) -> None:
    file, _ = imported(german(tmp_path / "g.csv"), order_by="Tag", leave_out=["Fall"])
    forward, _ = imported(german(tmp_path / "g.csv"), leave_out=["Fall", "Tag"])
    rows = forward.rows(2)
    np.testing.assert_array_equal(file.targets(2, file.rows(2)), forward.targets(2, rows)[::-1])
    with pytest.raises(InputError, match="Tag is '08.03.2024', but texts are ordered letter by letter: write dates wi"):
        imported(german(tmp_path / "g.csv", day="{:02d}.03.2024"), order_by="Tag")


def test_other_encodings_are_told_of(tmp_path: Path) -> None:
    csv = german(tmp_path / "g.csv")
    csv.write_bytes(csv.read_text("utf-8-sig").encode("cp1252"))
    with pytest.raises(InputError, match=r"g\.csv: is not in UTF-8 .*: save it as a CSV file in UTF-8"):
        imported(csv)
    head, *rows = german(csv).read_bytes().split(b"\r\n")
    csv.write_bytes(b"\r\n".join([head, *rows * 10, rows[0].replace(b";red;", b";r\xf6t;")]))
    with pytest.raises(InputError, match=r"g\.csv: cannot be read: .*UTF8.*; save it as a CSV file in UTF-8"):
        imported(csv, leave_out=["Fall"])
    assert GroupTable.kind == "group_table"
