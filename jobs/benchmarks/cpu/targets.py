"""What was aimed at, and what the records say was reached."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jobs.benchmarks.cpu import memories, meta_steps, sampled, whole_runs
from jobs.benchmarks.cpu.cases import METHODS, Case
from jobs.benchmarks.cpu.contenders import BY_HAND
from jobs.benchmarks.cpu.turns import fastest, quartiles, ratios

Found = Mapping[str, Mapping[str, Any]]
"""What the records found, by section and name, as `key_of` joins them."""
OURS = "metaray"
MAML_1, MAML_5, ANIL_5, PROTONET = METHODS[:4]
SPEEDS = (("float32", ">= 1.3", "0.95-1.1"), ("bfloat16", ">= 2", "1.4"))
PROTONETS = (("float32", ">= 2.5", "1.6"), ("bfloat16", ">= 4", "2.5"))


def key_of(section: str, name: str) -> str:
    """Under which a record's findings are kept."""
    return f"{section}: {name}"


class Target(NamedTuple):
    """One line of the table.

    Attributes:
        name: what is compared.
        before: what was measured before the work on speed began.
        aim: what is to be reached, a comparison with a number.
        reached: the lower quartile, the median and the upper one of the records; None where they do not tell.
    """

    name: str
    before: str
    aim: str
    reached: Callable[[Found], list[float] | None]

    def holds(self, found: Found) -> bool | None:
        """Whether the median is where it should be."""
        reached = self.reached(found)
        if reached is None:
            return None
        sign, number = self.aim.split()
        return reached[1] >= float(number) if sign == ">=" else reached[1] <= float(number)


def ours_of(times: Mapping[str, list[float]]) -> str:
    """The fastest of metaray's."""
    return fastest({name: values for name, values in times.items() if name.startswith(OURS)})


def peer_of(times: Mapping[str, list[float]]) -> str:
    """The fastest of all others, but for the loop by hand that borrows metaray's network."""
    return fastest({name: values for name, values in times.items() if not name.startswith((OURS, f"{BY_HAND},"))})


def _speed(case: Case, dtype: str, peer: str | None = None) -> Callable[[Found], list[float] | None]:
    """A peer's time over metaray's, turn by turn; by default that of the fastest peer."""

    def reached(found: Found) -> list[float] | None:
        record = found.get(key_of(meta_steps.SECTION, case._replace(dtype=dtype).title))
        if record is None:
            return None
        times = record["ms_an_episode"]
        return quartiles(ratios(times[peer or peer_of(times)], times[ours_of(times)]))

    return reached


def shares(record: Mapping[str, Any], name: str) -> list[float]:
    """The share of the GEMM rate that a contender reached, turn by turn."""
    work = record["gflop_an_episode"]
    speeds = [1e3 * work / ms for ms in record["ms_an_episode"][name]]
    return ratios(speeds, record["gemm_gflop_per_s"])


def _share(found: Found) -> list[float] | None:
    record = found.get(key_of(meta_steps.SECTION, MAML_1.title))
    return None if record is None else quartiles(shares(record, ours_of(record["ms_an_episode"])))


def _sampling(found: Found) -> list[float] | None:
    record = found.get(key_of(sampled.SECTION, "in one process"))
    if record is None:
        return None
    times = record["us_an_episode"]
    theirs = times.get(sampled.LEARN2LEARN) or times["stand-in for learn2learn's fused taskset"]
    return quartiles(ratios(theirs, times["metaray"]))


def rise(held: Mapping[str, float]) -> float:
    """Bytes that the meta-steps added at most."""
    return held["peak_bytes"] - held["before_bytes"]


def _memory(names: Callable[[Mapping[str, Any]], list[str]], key: str = "") -> Callable[[Found], list[float] | None]:
    """What one of metaray's takes over the loop by hand: bytes, or by `key` something else."""

    def reached(found: Found) -> list[float] | None:
        held = found.get(key_of(memories.SECTION, memories.TITLE), {}).get("held", {})
        chosen = [name for name in names(held) if name in held]
        if not chosen:
            return None
        value = (lambda name: held[name][key]) if key else (lambda name: rise(held[name]))
        return [min(value(name) for name in chosen) / value(BY_HAND)] * 3

    return reached


def _kept(held: Mapping[str, Any]) -> list[str]:
    return [name for name in held if name.startswith(OURS) and name != memories.RECOMPUTED]


def _recomputed(_: Mapping[str, Any]) -> list[str]:
    return [memories.RECOMPUTED]


def _recompute_time(found: Found) -> list[float] | None:
    held = found.get(key_of(memories.SECTION, memories.TITLE), {}).get("held", {})
    if memories.RECOMPUTED not in held:
        return None
    times = [held[name]["cpu_s_a_step"] for name in (memories.RECOMPUTED, "metaray, each")]
    return [times[0] / times[1]] * 3


def _workers(found: Found) -> list[float] | None:
    record = found.get(key_of(whole_runs.WORKERS, "2 workers against 1"))
    if record is None:
        return None
    rates = record["episodes_per_s"]
    one = statistics.median(rates["1"])
    return quartiles([rate / one for rate in rates["2"]])


def _start_up(*path: str) -> Callable[[Found], list[float] | None]:
    def reached(found: Found) -> list[float] | None:
        record = found.get(key_of(whole_runs.START_UP, "from command to first step"))
        if record is None:
            return None
        value = record["spreads"]
        for key in path:
            value = value.get(key, {})
        return [value["lower"], value["median"], value["upper"]] if value else None

    return reached


TARGETS = (
    *(
        Target(f"MAML pooled, 1 step, fastest peer, {dtype}", before, aim, _speed(MAML_1, dtype))
        for dtype, aim, before in SPEEDS
    ),
    Target("MAML pooled, 5 steps, fastest peer, float32", "1.0-1.1", ">= 1.25", _speed(MAML_5, "float32")),
    Target("ANIL 5 steps 5-shot, by hand, float32", "0.5", ">= 1.3", _speed(ANIL_5, "float32", BY_HAND)),
    *(
        Target(f"ProtoNet 20-way 5-shot, by hand, {dtype}", before, aim, _speed(PROTONET, dtype, BY_HAND))
        for dtype, aim, before in PROTONETS
    ),
    Target("share of the float32 GEMM rate, pooled MAML 1 step", "0.44", ">= 0.6", _share),
    Target("episodes/s in one process over learn2learn's fused taskset", "0.9", ">= 10", _sampling),
    Target("peak memory of 5 steps over the loop by hand", "1.0", "<= 0.7", _memory(_kept)),
    Target("the same, inner steps computed anew", "-", "<= 0.5", _memory(_recomputed)),
    Target("time of inner steps computed anew over kept ones", "-", "<= 1.35", _recompute_time),
    Target("2 Ray workers over 1, episodes/s", "-", ">= 1.85", _workers),
    Target("s to the first step, in process", "6.9", "<= 3", _start_up("workers_0", "first_step_s")),
    Target("s to the first step, two workers", "25-40", "<= 12", _start_up("workers_2", "first_step_s")),
    Target("s of `metaray registry list`", "3-4", "<= 1.5", _start_up("registry list", "seconds")),
)
