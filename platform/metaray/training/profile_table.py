"""What a profile of outer steps says in short: where the time of a step goes, by phase and by operation."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch.profiler import profile

from metaray.phases import PHASES

DEAREST, WIDTH = 10, 44
REST = "rest of the step"
WHOLE_PHASES = frozenset({"evaluation"})
"""Phases that keep the time of those inside them: an evaluation has inner loops and query passes, too."""
STEP = "ProfilerStep"
"""What torch's profiler calls a step."""


class Range(NamedTuple):
    """A block of code that ran once: its name, and when it began and ended, in microseconds."""

    name: str
    start: float
    end: float


def own_times(ranges: Iterable[Range]) -> dict[str, float]:
    """The time spent in each phase of one thread, without that in the phases inside it, in microseconds.

    Args:
        ranges: Each within another or apart from it, in any order.
    """
    own: dict[str, float] = defaultdict(float)
    around: list[Range] = []
    for one in sorted(ranges, key=lambda one: (one.start, -one.end)):
        while around and around[-1].end <= one.start:
            around.pop()
        if any(outer.name in WHOLE_PHASES for outer in around):
            continue
        if around:
            own[around[-1].name] -= one.end - one.start
        own[one.name] += one.end - one.start
        around.append(one)
    return dict(own)


def table(profiler: profile) -> str:
    """The phases in the order of a step, then the dearest operations; shares are of the steps, and of all operations.

    Args:
        profiler: Profiler that has stopped.
    """
    marks = [event for event in profiler.events() if event.is_user_annotation and _on_host(event)]
    steps = [mark for mark in marks if mark.name.startswith(STEP)]
    start, end = min(step.time_range.start for step in steps), max(step.time_range.end for step in steps)
    here, beside = list[Range](), list[Range]()
    for mark in marks:
        if mark.name in PHASES and start <= mark.time_range.start < end:
            same = mark.thread == steps[0].thread
            (here if same else beside).append(Range(mark.name, mark.time_range.start, mark.time_range.end))
    rows = [row for row in profiler.key_averages() if not row.is_user_annotation and _on_host(row)]
    phases = phase_lines(own_times(here), own_times(beside), end - start, len(steps))
    return "\n".join([*phases, "", *_operation_lines(rows, len(steps))])


def phase_lines(own: Mapping[str, float], beside: Mapping[str, float], whole: float, count: int) -> Iterator[str]:
    """A line a phase; those of the thread that computes add up to `whole`.

    Args:
        own: Time by phase in that thread, in microseconds.
        beside: Time by phase in other threads, in microseconds.
        whole: Time of all steps, in microseconds.
        count: Number of steps.
    """
    rest = whole - sum(own.values())
    rows: list[tuple[str, float]] = [(name, own[name]) for name in PHASES if name in own]
    rows += [(REST, rest), *((f"({name}, in a thread beside)", time) for name, time in beside.items())]
    yield f"{'phase':<{WIDTH}}{'share':>8}{'ms a step':>12}"
    for name, time in rows:
        yield f"{name:<{WIDTH}}{time / whole:>8.1%}{time / 1000 / count:>12.2f}"


def _operation_lines(rows: Sequence[Any], count: int) -> Iterator[str]:
    """A line an operation; by the time of a GPU, where one took part: the host only asks for its work."""
    on_gpu = any(row.self_device_time_total for row in rows)
    times = {row.key: float(row.self_device_time_total if on_gpu else row.self_cpu_time_total) for row in rows}
    whole = sum(times.values())
    dearest = sorted((row for row in rows if times[row.key] > 0), key=lambda row: -times[row.key])[:DEAREST]
    yield f"{'operation, itself':<{WIDTH}}{'share':>8}{'GPU' if on_gpu else 'CPU':>5} ms a step{'calls a step':>14}"
    for row in dearest:
        name = row.key if len(row.key) < WIDTH else f"{row.key[: WIDTH - 4]}..."
        time = times[row.key]
        yield f"{name:<{WIDTH}}{time / whole:>8.1%}{time / 1000 / count:>15.2f}{row.count / count:>14.1f}"


def _on_host(event: Any) -> bool:
    return bool(event.device_type.name == "CPU")
