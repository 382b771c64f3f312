"""What a record says of what is aimed at: a table, of pure arithmetic on the rows."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from jobs.benchmarks.gpu.execution import BY_HAND, EXECUTIONS, FIVE, INDUCTIVE, ONE, PROTONET, RESNET, Kind
from jobs.benchmarks.gpu.record import Record, Row
from jobs.benchmarks.gpu.section import shown

RAY_CASE = "on Ray: 1 worker, 4 samplers"
AGAINST_BARE = "step / bare step"
ACCURACY, WITHIN_S = 98.7, 300.0
NOT_MEASURED = "not measured"


class Target(NamedTuple):
    """One line.

    Attributes:
        what: is compared.
        wanted: the bound, in words.
        found: the value; None where something of it was not measured.
        holds: whether that is within the bound.
        by: of what it was found.
    """

    what: str
    wanted: str
    found: float | None
    holds: bool
    by: str

    @property
    def cells(self) -> list[str]:
        """Of a table."""
        if self.found is None:
            return [self.what, self.wanted, NOT_MEASURED, "", self.by]
        return [self.what, self.wanted, shown(self.found), "yes" if self.holds else "**no**", self.by]


HEAD = ["target", "wanted", "found", "reached", "by"]


class Best(NamedTuple):
    """The fastest of the ways to compute something."""

    milliseconds: float
    row: Row
    execution: str


def best(record: Record, workload: str, *, workers: int = 1, arithmetic: str = "float32") -> Best | None:
    """The fastest way, among those that were measured and hold."""
    rows = {row.case: row for row in record.of("execution") if row.status == "holds"}
    found = []
    for execution in EXECUTIONS:
        row = rows.get(Kind(workload, execution, workers, arithmetic).name)  # type: ignore[arg-type]
        if row is not None:
            found.append(Best(_number(row, "ms a step"), row, execution))
    return min(found, default=None, key=lambda one: one.milliseconds)


def targets(record: Record) -> list[Target]:
    """All of them, in the order of the table that they come from."""
    return [
        *(_against_by_hand(record, *each) for each in BY_HAND_TARGETS),
        *(_against_jax(record, steps, workload) for steps, workload in (("1 step", ONE), ("5 steps", FIVE))),
        _bound(record),
        *_chunks(record),
        *(_protocols(record, workload) for workload in (ONE, FIVE)),
        _on_ray(record),
        *_trained(record),
    ]


BY_HAND_TARGETS: list[tuple[str, str, float]] = [
    (ONE, "float32", 35),
    (FIVE, "float32", 50),
    (ONE, "bfloat16", 50),
    (FIVE, "bfloat16", 80),
    (PROTONET, "float32", 3),
    (RESNET, "float32", 3),
]
"""Workload, arithmetic, and how many times faster than task by task, in float32, it is to be."""


def _against_by_hand(record: Record, workload: str, arithmetic: str, wanted: float) -> Target:
    what = f"{workload}, {arithmetic}: task by task / metaray"
    row = next((r for r in record.of("execution") if r.case == f"{workload}: {BY_HAND}" and r.values), None)
    ours = best(record, workload, arithmetic=arithmetic)
    if row is None or ours is None:
        return _least(what, wanted, None, "")
    by_hand = _number(row, "ms a step")
    return _least(what, wanted, by_hand / ours.milliseconds, f"{by_hand:.4g} / {_told(ours)}")


def _against_jax(record: Record, steps: str, workload: str) -> Target:
    what, wanted = f"{workload}, float32: JAX's gradient / metaray's step", 1.2
    row = next((r for r in record.of("peers") if r.case == f"MAML, {steps}, float32" and r.values), None)
    ours = best(record, workload)
    if row is None or ours is None:
        return _least(what, wanted, None, "")
    theirs = _number(row, "ms a gradient")
    return _least(what, wanted, theirs / ours.milliseconds, f"{theirs:.4g} / {_told(ours)}")


def _bound(record: Record) -> Target:
    ours = best(record, FIVE)
    share = None if ours is None else _number(ours.row, "share of the bound")
    return _least(f"{FIVE}, float32: share of the bound", 0.2, share, "" if ours is None else ours.execution)


def _chunks(record: Record) -> Iterator[Target]:
    for workload in (ONE, FIVE):
        for workers in (2, 4):
            whole, cut = best(record, workload), best(record, workload, workers=workers)
            what = f"{workload}, float32: most_workers={workers} / 1"
            yield _most(what, 1.15, *_ratio(cut, whole))


def _protocols(record: Record, workload: str) -> Target:
    inductive, transductive = best(record, INDUCTIVE[workload]), best(record, workload)
    return _most(f"{workload}, float32: inductive / transductive", 1.1, *_ratio(inductive, transductive))


def _on_ray(record: Record) -> Target:
    rows = [row for row in record.of("ray") if row.case == RAY_CASE and row.values.get(AGAINST_BARE) is not None]
    found = _number(rows[0], AGAINST_BARE) if rows else None
    return _most("a worker on Ray / the bare step", 1.05, found, "the median step")


def _trained(record: Record) -> Iterator[Target]:
    row = next((row for row in record.of("training") if row.values), None)
    on_omniglot = row is not None and row.values.get("data") == "Omniglot"
    accuracy = _number(row, "accuracy %") if row is not None and on_omniglot else None
    seconds = _number(row, "s") if row is not None else 0.0
    wanted = f">= {ACCURACY:g} within {WITHIN_S:g} s"
    holds = accuracy is not None and accuracy >= ACCURACY and seconds <= WITHIN_S
    yield Target("Omniglot, MAML, accuracy %", wanted, accuracy, holds, f"after {seconds:.0f} s" if row else "")
    waiting = _number(row, "waiting %") if row is not None else None
    speed = f"{_number(row, 'episodes/s'):.0f} episodes/s" if row is not None else ""
    yield _most("waiting for episodes, %", 1.0, waiting, speed)


def _ratio(one: Best | None, other: Best | None) -> tuple[float | None, str]:
    if one is None or other is None:
        return None, ""
    return one.milliseconds / other.milliseconds, f"{_told(one)} / {_told(other)}"


def _told(found: Best) -> str:
    return f"{found.milliseconds:.4g} ms ({found.execution})"


def _number(row: Row, key: str) -> float:
    value = row.values[key]
    assert isinstance(value, float), (row.case, key, value)
    return value


def _least(what: str, wanted: float, found: float | None, by: str) -> Target:
    return _bounded(what, f">= {wanted:g}", found, lambda value: value >= wanted, by)


def _most(what: str, wanted: float, found: float | None, by: str) -> Target:
    return _bounded(what, f"<= {wanted:g}", found, lambda value: value <= wanted, by)


def _bounded(what: str, wanted: str, found: float | None, holds: Callable[[float], bool], by: str) -> Target:
    return Target(what, wanted, found, found is not None and holds(found), by)
