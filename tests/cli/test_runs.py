"""`metaray runs` and `metaray init`, in this process."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from metaray.cli import amounts, run_lines
from metaray.cli.amounts import duration_text, size_text
from metaray.cli.run_lines import COLUMNS, print_overviews, score_text, state_text, table_lines
from metaray.records.overview import Overview, Score
from metaray.records.run import held
from metaray.records.storage import Storage

OVERVIEWS = [
    Overview(
        "glyphs-20261127-143435-02e7", "run", "finished", "glyphs", 600, 600, Score("meta-test", "accuracy", 0.8786)
    ),
    Overview(
        "sinusoid-maml-20261127-143435-02e7", "run", "unfinished", "sinusoid-maml", 5, 9, Score("meta-val", "mse", 1)
    ),
    Overview("mine", "run", "failed", "glyphs", 20, 600, why="2026-11-27 14:34:35 UTC: it fell " + "over " * 99),
    Overview("busy", "run", "running", "glyphs", 20, 600, holder="process 7 on host x since 2026-11-27 14:34 UTC"),
    Overview("tried", "search", "unfinished", "glyphs", 3, None),
    Overview("spoilt", "run", "damaged", why="run.json is missing"),
    Overview("refused", "run", "not begun"),
]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (amounts, run_lines):
        monkeypatch.setattr(module, "terminal_width", lambda: 80)


@pytest.mark.usefixtures("narrow")
def test_a_list_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_overviews(OVERVIEWS, time.time())
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    cells = [line.split() for line in lines]
    assert cells[0] == list(COLUMNS)
    assert ["mine", "glyphs", "failed", "20/600"] in cells
    at = lines.index("sinusoid-maml-20261127-143435-02e7")
    assert cells[at + 1] == ["sinusoid-maml", "step", "5/9", "(mse", "1.0000)"]
    assert ["tried", "glyphs", "search,", "3/?", "trials"] in cells
    text = " ".join(" ".join(lines).split())
    assert "busy: running: process 7 on host x since 2026-11-27 14:34 UTC" in text
    assert "spoilt: damaged: run.json is missing" in text
    assert "mine: failed: 2026-11-27 14:34:35 UTC: it fell over" in text and "over ..." in text


def test_what_fits_no_table_has_lines_of_its_own() -> None:
    rows = [("name", "a", "b"), ("x", "y" * 40, ""), ("long" * 30, "z", "w")]
    assert list(table_lines(rows, 45)) == ["x", f"    {'y' * 40}", "long" * 30, "    z, w"]
    assert next(table_lines(rows, 1000)).split() == ["name", "a", "b"]


def test_words() -> None:
    assert [state_text(seen) for seen in OVERVIEWS] == [
        "finished", "step 5/9", "failed 20/600", "running 20/600", "search, 3/? trials", "damaged", "not begun"
    ]  # fmt: skip
    assert score_text(Score("meta-val", "", 0.5)) == "(0.5000)"
    texts = [duration_text(seconds) for seconds in (-1, 0, 119, 120, 7199, 7200, 172799, 172800)]
    assert texts == ["0 s", "0 s", "119 s", "2 min", "120 min", "2 h", "48 h", "2 d"]
    assert [size_text(size) for size in (0, 1234, 12_345_678, 12_345_678_901)] == [
        "0 kB",
        "1.23 kB",
        "12.3 MB",
        "12.3 GB",
    ]


def test_runs_are_listed_shown_and_cleaned(trained: Any, command: Any, tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    shutil.copytree(trained.storage / "first", storage / "first")
    code, out, err = command("runs", "list", "--storage", storage)
    assert (code, err) == (0, "")
    assert out.splitlines()[1].split()[:3] == ["first", "tiny", "finished"]
    (row,) = json.loads(command("runs", "list", "--storage", storage, "--json").out)
    assert (row["name"], row["kind"], row["state"], row["done"], row["planned"]) == ("first", "run", "finished", 6, 6)
    assert row["score"]["split"] == "meta-test" and row["holder"] is None and row["changed"].endswith("+00:00")

    code, out, err = command("runs", "show", "first", "--storage", storage)
    assert (code, err) == (0, "")
    for text in (
        "run: first, of experiment tiny",
        "state: finished",
        f"learner: {storage}/first/learner",
        f"MLflow run: {row['tracking_run']}",
        "protocol: 3-way 1-shot, 2 queries a class, transductive batch norm",
    ):
        assert text in out.splitlines(), text
    assert "last measured, after step 6: " in out
    code, out, err = command("runs", "show", "first", "--storage", storage, "--table", tmp_path / "episodes.csv")
    header, *rows = (tmp_path / "episodes.csv").read_text().splitlines()
    assert (code, err) == (0, "") and len(rows) == 8 and header.startswith("episode,support,query,accuracy,accuracy_")
    for options, problem in (
        (("--by", "suport"), "unknown --by 'suport'. Did you mean 'support'?"),
        (("--by", "query"), "--by query: all 8 meta-test episodes of first have 6 query examples"),
        (("--by", "group"), "--by group: all 8 meta-test episodes of first are of no group that would come again"),
        (("--table", tmp_path / "no" / "x.csv"), f"there is no folder {tmp_path}/no"),
        (("--table", tmp_path), "is a folder; name a file"),
    ):
        code, out, err = command("runs", "show", "first", "--storage", storage, *options)
        assert (code, out) == (2, "") and problem in err
    shown = json.loads(command("runs", "show", "first", "--storage", storage, "--json").out)
    assert f"parameters sha256: {shown['result']['parameters_sha256']}" in trained.ended.out
    assert shown["last"]["val/accuracy"]["step"] == 6 and shown["failure"] is None and shown["checkpoints"]

    assert shown["breakdown"] == {}

    (storage / "first/.x.0f.tmp").write_bytes(b"12")
    code, out, err = command("runs", "clean", "--storage", storage)
    assert (code, err) == (0, "") and (storage / "first/.x.0f.tmp").exists()
    assert "would delete first/.x.0f.tmp: a file whose write broke off, 0.002 kB" in out.splitlines()
    assert out.splitlines()[-1].startswith("nothing was deleted; --yes deletes ")
    assert "deleted first/.x.0f.tmp: " in command("runs", "clean", "--storage", storage, "--yes").out
    assert command("runs", "clean", "--storage", storage).out == "nothing to delete\n"
    with held(Storage(str(storage / "first"))):
        code, out, err = command("runs", "clean", "first", "--yes", "--storage", storage)
        assert (code, out) == (2, "") and "run 'first' cannot be removed now: it is in use by process" in err
        assert "left alone first: it is in use" in command("runs", "clean", "--storage", storage).out
        assert "first: running: process " in command("runs", "list", "--storage", storage).out
    out = command("runs", "clean", "first", "--yes", "--storage", storage).out
    assert out.startswith("deleted first: the whole run, ") and list(storage.iterdir()) == []


def test_no_runs(command: Any, tmp_path: Path) -> None:
    assert command("runs", "list", "--storage", tmp_path).out == f"no runs in {tmp_path}\n"
    assert command("runs", "list", "--storage", tmp_path, "--json").out == "[]\n"
    assert command("runs", "clean", "--storage", tmp_path).out == "nothing to delete\n"
    code, out, err = command("runs", "show", "x", "--storage", tmp_path)
    assert (code, out) == (2, "") and "Known: none." in err


def test_a_project_is_written(command: Any, tmp_path: Path) -> None:
    code, out, err = command("init", tmp_path / "my-letters")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"{tmp_path}/my-letters/recipes.py"
    assert out.splitlines()[-1].startswith(f"next: cd {tmp_path}/my-letters && metaray show recipes.py:letters")
    code, out, err = command("init", tmp_path / "my-letters")
    assert (code, out) == (2, "") and "is not empty: it holds .gitignore, README.md, models.py" in err
