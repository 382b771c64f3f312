"""The record of the GPU checks, its tables, and the page made of it."""

import json
import math
from pathlib import Path

import pytest

from jobs.benchmarks.gpu import page
from jobs.benchmarks.gpu.__main__ import main
from jobs.benchmarks.gpu.record import Record, Row
from jobs.benchmarks.gpu.table import section_table, summary, tables

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Of a run that was cut off in its second section."""
    found = Record.new(tmp_path / "out" / "record.json", {"device": "NVIDIA H200", "memory GiB": 139.8})
    found.begin("conformance", "How near.")
    found.add(Row("conformance", "maml, MLP, single", "holds", {"float64": 1e-15, "least cosine": 0.9}, "", 1.0))
    found.add(Row("conformance", "maml, Conv4, single", "wrong", {"float64": 1e-3, "least cosine": 0.8}, "beyond", 1.0))
    found.add(Row("conformance", "anil, MLP, single", "holds", {"float64": math.nan, "least cosine": 1.0}, "", 1.0))
    found.add(Row("conformance", "nearest", "skipped", {}, "it has no parameters"))
    found.end("conformance", 12.34, "whole")
    found.begin("costs", "How long.")
    found.add(Row("costs", "copy", "holds", {"TB/s": 4.13}))
    found.add(Row("costs", "chunk 32", "out of memory", {}, "tried to allocate 80 GiB"))
    found.add(Row("costs", "chunk 8", "out of time", {}, "the section's time was over"))
    found.runs("costs", "chunk 1")
    return found


def test_after_a_cut_all_that_was_found_is_there(record: Record) -> None:
    found = Record(record.path)
    assert found.rows[:2] == record.rows[:2] and len(found.rows) == 7 and found.machine == record.machine
    assert found.sections["costs"] | {"about": ""} == {
        **{"about": "", "seconds": 0.0, "ended": "cut off", "running": "chunk 1"},
    }
    assert not found.is_good and [path.name for path in record.path.parent.iterdir()] == ["record.json"]


def test_a_section_that_is_run_again_replaces_what_it_found(record: Record) -> None:
    found = Record(record.path)
    found.begin("conformance", "again")
    assert [row.section for row in Record(record.path).rows] == ["costs"] * 3
    assert Record.new(record.path, {"device": "other"}).rows == [] and Record(record.path).machine["device"] == "other"


def test_what_went_wrong_is_bad_and_what_was_not_run_is_not(tmp_path: Path) -> None:
    for status, good in (("holds", True), ("skipped", True), ("out of time", True), ("failed", False)):
        found = Record.new(tmp_path / "record.json", {})
        found.begin("bits", "")
        found.add(Row("bits", "case", status, {}))  # type: ignore[arg-type]
        assert not found.is_good, "it has not ended"
        found.end("bits", 1.0, "whole")
        assert found.is_good == good, status


def test_an_algorithms_line_shows_the_worst(record: Record) -> None:
    assert section_table(record, "conformance").splitlines() == [
        "|  | cases | float64 | cosine |",
        "|---|---|---|---|",
        "| maml | 2, **1 wrong** | 0.001 | 0.8 |",
        "| anil | 1 | nan | 1 |",
        "",
        "- skipped (it has no parameters): nearest",
    ]


def test_the_summary_says_how_sections_ended(record: Record) -> None:
    assert summary(record).splitlines()[2:] == [
        "| conformance | 2 | 1 | 0 | 0 | 1 | 0 | 12.3 | whole |",
        "| costs | 1 | 0 | 0 | 1 | 0 | 1 | 0 | cut off, during: chunk 1 |",
    ]


def test_the_tables_hold_all_that_there_is_to_know(record: Record) -> None:
    text = tables(record)
    assert "- device: NVIDIA H200\n- memory GiB: 140" in text and "## conformance\n\nHow near.\n\n|" in text
    assert "conformance, maml, Conv4, single: wrong\n\n```\nbeyond\n```" in text
    assert "| copy | 4.13 |" in text and "costs, chunk 32: out of memory\n\n```\ntried to allocate 80 GiB\n```" in text
    assert "- out of time (the section's time was over): chunk 8" in text


def test_a_record_as_tables_by_command(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--table", str(record.path)]) == 0
    assert capsys.readouterr().out == tables(record) + "\n"


def test_without_a_record_the_page_says_that_nothing_was_run() -> None:
    text = page.page([])
    assert "## Not run yet" in text and "have run on CPUs only" in text
    assert "- **conformance** (50 s): The meta-gradient of" in text and "- **ray** (200 s): " in text


def test_a_record_that_is_kept_makes_the_page(record: Record, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    target = page.keep(record.path, docs)
    assert target == docs / "gpu" / "nvidia-h200.json" and json.loads(target.read_text())["rows"]
    text = (docs / "gpu.md").read_text()
    assert "\n## NVIDIA H200\n" in text and "### conformance" in text and "Not run yet" not in text
    page.keep(record.path, docs)
    assert [path.name for path in (docs / "gpu").iterdir()] == ["nvidia-h200.json"]


def test_the_page_is_what_its_records_make(tmp_path: Path) -> None:
    """Nothing in it is edited by hand."""
    (tmp_path / "gpu").mkdir()
    for path in (DOCS / "gpu").glob("*.json"):
        (tmp_path / "gpu" / path.name).write_text(path.read_text())
    page.write_page(tmp_path)
    assert (tmp_path / "gpu.md").read_text() == (DOCS / "gpu.md").read_text()
