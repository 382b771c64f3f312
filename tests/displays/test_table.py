import pytest

from metaray.displays.table import one_line, print_table


def test_nothing_is_cut_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    long = "a" * 300
    print_table(("name", "value"), [(long, "1"), ("[red]b[/red] :smile:", "2")])
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "value"]
    assert first.split() == [long, "1"]
    assert second.split() == ["[red]b[/red]", ":smile:", "2"]


def test_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name",), [])
    assert capsys.readouterr().out.split() == ["name"]


def test_control_characters_are_shown_as_their_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name",), [("a\nb\x1b[2J\udce9",), ("caf\u00e9 \u732b",)])
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "name",
        "a\\nb\\x1b[2J\\udce9",
        "caf\u00e9 \u732b",
    ]
    assert one_line("\u2028") == "\\u2028"
