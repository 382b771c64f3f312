"""What a record says of what is aimed at: arithmetic on rows that are made up here."""

from pathlib import Path
from typing import Any

import pytest

from jobs.benchmarks.gpu.execution import BY_HAND, FIVE, INDUCTIVE, ONE, PROTONET, Kind
from jobs.benchmarks.gpu.record import Record, Row, Values
from jobs.benchmarks.gpu.targets import AGAINST_BARE, RAY_CASE, Target, best, targets


@pytest.fixture
def record(tmp_path: Path) -> Record:
    found = Record.new(tmp_path / "record.json", {"device": "none"})

    def add(section: str, case: str, values: Values, status: str = "holds") -> None:
        found.add(Row(section, case, status, values))  # type: ignore[arg-type]

    for kind, milliseconds in {
        Kind(ONE, BY_HAND): 448.0,
        Kind(ONE, "graph"): 8.0,
        Kind(ONE, "batched"): 73.0,
        Kind(ONE, "graph", 4): 8.8,
        Kind(ONE, "graph", 2): 12.0,
        Kind(FIVE, BY_HAND): 1788.0,
        Kind(FIVE, "compiled"): 60.0,
        Kind(INDUCTIVE[ONE], "batched"): 8.4,
        Kind(PROTONET, BY_HAND): 90.0,
        Kind(PROTONET, "graph"): 20.0,
    }.items():
        add("execution", kind.name, {"ms a step": milliseconds, "share of the bound": 6.0 / milliseconds})
    add("execution", Kind(FIVE, "graph").name, {"ms a step": 1.0}, "wrong")
    add("peers", "MAML, 1 step, float32", {"ms a gradient": 16.0})
    add("ray", RAY_CASE, {AGAINST_BARE: 1.02})
    row: Values = {"data": "Omniglot", "accuracy %": 98.9, "s": 250.0, "waiting %": 1.5, "episodes/s": 4000.0}
    add("training", "MAML", row)
    return found


def test_the_fastest_that_holds_counts(record: Record) -> None:
    one, five = best(record, ONE), best(record, FIVE)
    assert one is not None and (one.milliseconds, one.execution) == (8.0, "graph")
    assert five is not None and (five.milliseconds, five.execution) == (60.0, "compiled"), "what is wrong is not fast"
    assert best(record, ONE, arithmetic="bfloat16") is None


def test_each_target(record: Record) -> None:
    found = {target.what: target for target in targets(record)}
    assert len(found) == len(targets(record))

    def of(what: str) -> Any:
        target: Target = found[what]
        return target.found, target.holds

    assert of(f"{ONE}, float32: task by task / metaray") == (56.0, True)
    assert of(f"{FIVE}, float32: task by task / metaray") == (pytest.approx(29.8), False)
    assert of(f"{PROTONET}, float32: task by task / metaray") == (4.5, True)
    assert of(f"{ONE}, bfloat16: task by task / metaray") == (None, False)
    assert of(f"{ONE}, float32: JAX's gradient / metaray's step") == (2.0, True)
    assert of(f"{FIVE}, float32: JAX's gradient / metaray's step") == (None, False)
    assert of(f"{FIVE}, float32: share of the bound") == (pytest.approx(0.1), False)
    assert of(f"{ONE}, float32: most_workers=4 / 1") == (pytest.approx(1.1), True)
    assert of(f"{ONE}, float32: most_workers=2 / 1") == (1.5, False)
    assert of(f"{ONE}, float32: inductive / transductive") == (pytest.approx(1.05), True)
    assert of("a worker on Ray / the bare step") == (1.02, True)
    assert of("Omniglot, MAML, accuracy %") == (98.9, True)
    assert of("waiting for episodes, %") == (1.5, False)
    assert found[f"{ONE}, float32: task by task / metaray"].cells == [
        *(f"{ONE}, float32: task by task / metaray", ">= 35", "56", "yes", "448 / 8 ms (graph)"),
    ]
    assert found[f"{ONE}, bfloat16: task by task / metaray"].cells[2:4] == ["not measured", ""]


def test_accuracy_on_other_data_or_too_late_does_not_count(record: Record) -> None:
    (row,) = record.of("training")
    for changes, expected in (({"s": 301.0}, (98.9, False)), ({"data": "glyphs"}, (None, False))):
        record.rows = [one for one in record.rows if one.section != "training"]
        record.add(row._replace(values={**row.values, **changes}))
        (found,) = (target for target in targets(record) if target.what.startswith("Omniglot"))
        assert (found.found, found.holds) == expected


def test_an_empty_record_has_nothing_measured(tmp_path: Path) -> None:
    found = targets(Record.new(tmp_path / "record.json", {}))
    assert len(found) == 18 and not any(target.holds for target in found)
    assert all(target.cells[2] == "not measured" for target in found)
