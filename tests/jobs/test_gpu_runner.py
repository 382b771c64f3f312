"""How the GPU checks are run: in processes of their own, within their time, whatever fails; on record all the while."""

import math
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.benchmarks.gpu import supervise
from jobs.benchmarks.gpu.__main__ import main, parsed
from jobs.benchmarks.gpu.record import Record, Row
from jobs.benchmarks.gpu.section import Case, Section, Setting, Skipped, Wrong, run_section, shown
from jobs.benchmarks.gpu.sections import BUDGETS_S, DEFAULT, TRAIN_S, load
from metaray.algorithms import ALGORITHMS
from tests.patience import wait_until


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(torch.device("cpu"), tmp_path, small=True)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record.new(tmp_path / "record.json", {"device": "none"})


def ran(section: Section, setting: Setting, record: Record, **options: Any) -> list[Row]:
    run_section(section, setting, record, **options)
    assert Record(record.path).rows == record.rows, "what is on disk is what was found"
    return record.of(section.name)


def a_section(*runs: Callable[[], Any]) -> Section:
    return Section("some", "about", lambda _: (Case(f"case {i}", run) for i, run in enumerate(runs)))


def raising(error: Exception) -> Callable[[], Any]:
    def run() -> Any:
        raise error

    return run


@pytest.mark.slow
def test_the_command_runs_sections_in_processes_of_their_own(tmp_path: Path, capfd: Any) -> None:
    out = tmp_path / "out"
    words = ["--device", "cpu", "--small", "--out", str(out), "--only", "conformance", "--budget-s", "3000"]
    assert main(words) == 0
    found = Record(out / "record.json")
    assert found.sections["conformance"]["ended"] == "whole" and found.is_good
    rows = {row.case: row for row in found.of("conformance")}
    assert len(rows) == 2 * (len(ALGORITHMS) - 1) + 1
    assert rows["nearest_neighbor"].why == "it has no meta-parameters, so no meta-gradient"
    assert all(row.values["float64"] == 0 for row in rows.values() if row.values), "a CPU equals itself"
    printed = capfd.readouterr().out
    assert "conformance: maml, Conv4, inductive, a chunk: float64 0" in printed
    assert (out / "tables.md").read_text() in printed and "| maml | 2 |" in printed
    assert found.machine["torch"] == torch.__version__ and found.machine["started"]


def test_without_a_gpu_it_says_what_to_do(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--out", str(tmp_path / "out")]) == 2
    assert "torch sees no GPU here; use --device cpu" in capsys.readouterr().err
    assert main(["--device", "cpu", "--omniglot", "no.arrow", "--out", str(tmp_path / "out")]) == 2
    assert "--omniglot 'no.arrow': there is no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_whatever_happens_to_a_case_the_next_is_run(setting: Setting, record: Record) -> None:
    said: list[str] = []
    errors = [ZeroDivisionError("by zero"), Wrong("too much", {"x": 2.0}), Skipped("not here")]
    errors.append(torch.OutOfMemoryError("tried to allocate\nmore"))
    section = a_section(*map(raising, errors), lambda: {"x": 1.0})
    rows = ran(section, setting, record, say=said.append)
    assert [row.status for row in rows] == ["failed", "wrong", "skipped", "out of memory", "holds"]
    assert "Traceback" in rows[0].why and "ZeroDivisionError: by zero" in rows[0].why
    assert rows[1].values == {"x": 2.0} and rows[1].why == "too much" and rows[3].why == "tried to allocate"
    assert not record.is_good and record.sections["some"]["ended"] == "whole"
    assert [line.rpartition(" [")[0] for line in said] == [
        "some: case 0: FAILED  (ZeroDivisionError: by zero)",
        "some: case 1: WRONG x 2 (too much)",
        "some: case 2: SKIPPED  (not here)",
        "some: case 3: OUT OF MEMORY  (tried to allocate)",
        "some: case 4: x 1",
    ]


def test_cases_that_cannot_be_made(setting: Setting, record: Record) -> None:
    def cases(_: Setting) -> Iterator[Case]:
        yield Case("first", dict)
        raise KeyError("gone")

    rows = ran(Section("some", "", cases), setting, record)
    assert [(row.case, row.status) for row in rows] == [("first", "holds"), ("making the cases", "failed")]


def test_when_the_time_is_over_the_rest_is_named(setting: Setting, record: Record) -> None:
    rows = ran(a_section(*[dict] * 3), setting, record, until=lambda: len(record.rows) >= 1)
    assert [row.status for row in rows] == ["holds", "out of time", "out of time"]
    assert record.is_good, "what was not run is not wrong"


def test_a_section_that_cannot_be_imported(setting: Setting, record: Record, monkeypatch: Any) -> None:
    monkeypatch.setattr(supervise, "load", lambda name: raising(ImportError("no module"))())
    supervise.run_here(["bits"], setting, record, 60.0)
    (row,) = record.rows
    assert row.status == "failed" and "ImportError: no module" in row.why


def test_a_process_that_hangs_is_killed_with_what_it_started(tmp_path: Path, monkeypatch: Any) -> None:
    child, real = tmp_path / "child", subprocess.Popen.wait

    def wait(process: Any, timeout: float | None = None) -> int:
        if timeout == 3.0:
            wait_until(lambda: child.exists() and child.read_text())
            raise subprocess.TimeoutExpired("", timeout)
        return real(process, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    assert supervise.attended(["sh", "-c", f"sleep 6000 & echo $! > {child}; wait"], 3.0) == "killed after 3 s"
    status = Path(f"/proc/{int(child.read_text())}/stat")
    wait_until(lambda: not status.exists() or status.read_text().split()[2] == "Z")


@pytest.mark.parametrize(
    ("does", "ended"),
    [
        ("exit 0", ""),
        ("exit 3", "its process ended with exit code 3"),
        ("kill -SEGV $$", "its process ended with SIGSEGV"),
    ],
)
def test_how_a_process_ended_is_told(does: str, ended: str) -> None:
    assert supervise.attended(["sh", "-c", does], 600.0) == ended


def test_a_section_that_is_cut_off_is_on_record_and_the_next_goes_on(record: Record, monkeypatch: Any) -> None:
    asked: list[tuple[str, float]] = []

    def attended(words: list[str], timeout_s: float) -> str:
        name = words[words.index("--only") + 1]
        asked.append((name, timeout_s))
        its = Record(record.path)
        its.begin(name, "about")
        if name == "bits":
            its.runs(name, "the third case")
            return "killed after 47 s"
        its.end(name, 1.0, "whole")
        return ""

    monkeypatch.setattr(supervise, "attended", attended)
    options = parsed(["--out", str(record.path.parent), "--budget-s", "350"])
    found = supervise.supervised(["bits", "costs"], options, record)
    assert [name for name, _ in asked] == ["bits", "costs"]
    assert [seconds for _, seconds in asked] == pytest.approx([42.0, 57.0])
    assert found.sections["bits"]["running"] == "the third case" and not found.is_good
    assert [section["ended"] for section in found.sections.values()] == ["killed after 47 s", "whole"]
    late = supervise.supervised(["peers"], parsed(["--budget-s", "1"]), record)
    assert late.sections["peers"]["ended"] == "not begun: the time for all was over" and len(asked) == 2


def test_all_sections_fit_into_ten_minutes() -> None:
    assert sum(BUDGETS_S[name] for name in DEFAULT) + supervise.GRACE_S <= 572 and "ray" not in DEFAULT
    assert parsed([]).budget_s <= 560 and all(load(name).name == name for name in BUDGETS_S)
    assert supervise.most_s_of("training", 290.0) == BUDGETS_S["training"] + 290.0 - TRAIN_S
    with pytest.raises(ValueError, match="there is no section 'gpu'"):
        load("gpu")


def test_numbers_are_shown_to_three_digits() -> None:
    values = [None, 3, "x", True, 0.0, 0.12345, 12.345, 1234.5, 1.23e-9, 5e12, math.nan]
    assert [shown(value) for value in values] == [
        *("-", "3", "x", "True", "0", "0.123", "12.3", "1234", "1.2e-09", "5.0e+12", "nan"),
    ]
