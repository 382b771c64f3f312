import pytest

from metaray.cli.table import print_table


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
