"""The table of a finished search, on narrow terminals and where there is none."""

import re
import sys
from typing import Any

import pytest

from metaray.displays.trial_table import trials_text
from tests.displays.test_trials_display import SIX, settings_of


def rows(fields: int, count: int = 3) -> list[dict[str, Any]]:
    return [
        {
            "name": f"trial-{n:04}",
            "status": "stopped early" if n else "finished",
            "settings": settings_of(n, fields),
            "episodes": 240_000,
            "value": None if n == 2 else 0.5,
        }
        for n in range(count)
    ]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """What is printed on a terminal of so many columns."""

    def shown(width: int, fields: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        print(trials_text(rows(fields), list(SIX)[:fields], "accuracy"))
        out = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
        assert max(map(len, out.splitlines())) <= width
        return out.splitlines()

    return shown


def cells(line: str) -> list[str]:
    return re.sub("[│┃]", " ", line).split()


@pytest.mark.parametrize(("fields", "values"), [(1, ["0.04124"]), (3, ["0.04124", "0.0001222", "8"])])
def test_a_row_a_trial_at_80_columns(terminal: Any, fields: int, values: list[str]) -> None:
    lines = terminal(80, fields)
    assert [cells(line)[0] for line in lines if "trial-" in line] == ["trial-0000", "trial-0001", "trial-0002"]
    assert ["trial-0001", "stopped", *values, "240000", "0.5000"] in map(cells, lines)


def test_six_fields_at_80_columns_are_blocks(terminal: Any) -> None:
    lines = terminal(80, 6)
    assert lines[:3] == [
        "trial-0000  finished  240000 episodes  best accuracy 0.5000",
        "    inner_lr=0.04166  outer_lr=0.0001234  meta_batch_size=8",
        "    final_lr_fraction=1.234e-05  weight_decay=1.234e-05  momentum=0.9876",
    ]
    assert "trial-0002  stopped  240000 episodes" in lines
    assert len(lines) == 9


def test_what_is_equal_in_all_trials_makes_room(terminal: Any) -> None:
    lines = terminal(100, 6)
    assert lines[-1] == "in all trials: meta_batch_size=8 optimizer.weight_decay=1.234e-05"
    assert ["trial-0001", "stopped", "0.04124", "0.0001222", "1.222e-05", "0.9777", "240000", "0.5000"] in [
        cells(line) for line in lines
    ]


def test_wide_terminals_and_files_have_all_in_a_row(terminal: Any, capsys: pytest.CaptureFixture[str]) -> None:
    row = ["0.04124", "0.0001222", "8", "1.222e-05", "1.234e-05", "0.9777"]
    assert ["trial-0001", "stopped", *row, "240000", "0.5000"] in map(cells, terminal(150, 6))


def test_files_have_all_in_a_row(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print(trials_text(rows(6), list(SIX), "accuracy"))
    head, *lines = capsys.readouterr().out.splitlines()
    names = ["inner_lr", "outer_lr", "meta_batch_size", "final_lr_fraction", "weight_decay", "momentum"]
    assert head.split() == ["trial", "status", *names, "episodes", "best", "accuracy"]
    assert [line.split()[0] for line in lines] == ["trial-0000", "trial-0001", "trial-0002"]
