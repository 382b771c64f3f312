"""docs/performance.md, made from the records in docs/performance/: nothing in it is edited by hand.

What limits a figure is a judgement, which no record has: limits.json there holds it, by the target's name.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.benchmarks.cpu import at_once, bounds, kernels, memories, meta_steps, sampled, whole_runs
from jobs.benchmarks.cpu.cases import CASES
from jobs.benchmarks.cpu.contenders import BY_HAND, BY_HAND_OURS, PEERS
from jobs.benchmarks.cpu.targets import TARGETS, Found, key_of, ours_of, peer_of, rise, shares
from jobs.benchmarks.cpu.turns import quartiles, ratios
from jobs.benchmarks.gpu.table import markdown

LIMITS = "limits.json"
Record = Mapping[str, Any]
HEAD = """# Performance on a CPU

Made by `python -m jobs.benchmarks.cpu` from the records in performance/; nothing here is edited by hand but what limits
a figure, in performance/limits.json.

```
make peers      # learn2learn, higher, TorchOpt and JAX, in an environment of their own
make bench      # everything below: 15 minutes on 2 quiet cores; an interrupted run goes on
```

Times are processor time of one thread unless it says otherwise. All that is compared took alternating turns in the same
run; figures are medians with quartiles, and ratios were taken turn by turn: above 1, metaray is the faster one.
"""


def write_page(out: Path) -> Path:
    """Write it from the records in `out`; returns where it is."""
    folder, path = out / "performance", out / "performance.md"
    limits = folder / LIMITS
    path.write_text(page(records_in(folder), json.loads(limits.read_text()) if limits.exists() else {}))
    return path


def records_in(folder: Path) -> list[Record]:
    """All that are kept there."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json")) if path.name != LIMITS]


def page(records: Sequence[Record], limits: Mapping[str, str]) -> str:
    """The whole page."""
    found: Found = {key_of(r["section"], r["name"]): r["found"] for r in records if "found" in r}
    parts = [HEAD, "## Targets\n", targets(found, limits), ""]
    parts += _section("Meta-steps", meta_steps.ABOUT, meta_step_tables(found))
    parts += _section("The machine's bounds", bounds.ABOUT, bound_table(found))
    parts += _section("Convolutions", kernels.ABOUT, kernel_table(found))
    parts += _section("Sampling", sampled.ABOUT, sampling_tables(found))
    parts += _section("Peak memory", memories.ABOUT, memory_table(found))
    parts += _section("Workers", whole_runs.WORKERS_ABOUT, workers_table(found))
    parts += _section("Start-up", whole_runs.START_UP_ABOUT, start_up_table(found))
    parts += ["## How it was made", "", *sources(records)]
    return "\n".join(parts) + "\n"


def _section(title: str, about: str, content: str) -> list[str]:
    return [f"## {title}", "", about, "", content or "Not measured yet.", ""]


def shown(low_median_high: Sequence[float] | None, digits: int = 2) -> str:
    """A median with its quartiles."""
    if low_median_high is None:
        return "-"
    low, middle, high = (f"{value:.{digits}f}" for value in low_median_high)
    return middle if low == high else f"{middle} ({low}-{high})"


def of_turns(values: Sequence[float], digits: int = 2) -> str:
    """The same of single turns."""
    return shown(quartiles(values) if values else None, digits)


def targets(found: Found, limits: Mapping[str, str]) -> str:
    """What was aimed at, and reached."""
    words = {None: "not measured", True: "yes", False: "no"}
    return markdown(
        ("", "before", "target", "now", "reached", "what limits it"),
        [
            [t.name, t.before, t.aim, shown(t.reached(found)), words[t.holds(found)], limits.get(t.name, "-")]
            for t in TARGETS
        ],
    )


def meta_step_tables(found: Found) -> str:
    """Ratios of each peer, then milliseconds and the share of the bound of metaray's."""
    chosen = [(c.title, found[key]) for c in CASES if (key := key_of(meta_steps.SECTION, c.title)) in found]
    if not chosen:
        return ""
    names = (BY_HAND, BY_HAND_OURS, *PEERS)
    head = (
        "",
        "fastest of metaray's",
        "ms an episode",
        "share of the GEMM rate",
        *(f"{n} / it" for n in names),
        "turns",
    )
    lines, ours = [], []
    for title, record in chosen:
        times = record["ms_an_episode"]
        best = ours_of(times)
        over = [of_turns(ratios(times.get(name, []), times[best])) for name in names]
        told = [title, best, of_turns(times[best], 1), of_turns(shares(record, best))]
        lines.append([*told, *_marked(names, over, peer_of(times)), str(len(times[best]))])
        mine = {name: values for name, values in times.items() if name.startswith("metaray")}
        ours += [
            [
                title,
                name,
                of_turns(ms, 1),
                of_turns(ratios(times["metaray, each"], ms)),
                f"{record['first_step_s'][name]:.1f}",
            ]
            for name, ms in mine.items()
        ]
    head_ours = ("", "metaray's", "ms an episode", "times as fast as `each`", "s of the first step")
    return f"{markdown(head, lines)}\n\n{_missing(chosen)}\n\n{markdown(head_ours, ours)}"


def _marked(names: Sequence[str], cells: Sequence[str], best: str) -> list[str]:
    """The fastest peer in bold."""
    return [f"**{cell}**" if name == best else cell for name, cell in zip(names, cells, strict=True)]


def _missing(chosen: Sequence[tuple[str, Record]]) -> str:
    """Who was not timed, and why."""
    why: dict[str, list[str]] = {}
    for title, record in chosen:
        for name, reason in record["absent"].items():
            last = reason.strip().splitlines()[-1]
            why.setdefault(f"{name}: {last}", []).append(title)
    return "\n".join(f"- {reason} ({'; '.join(titles)})" for reason, titles in why.items()) or "- All were timed."


def bound_table(found: Found) -> str:
    """What the machine does at most."""
    record = found.get(key_of(bounds.SECTION, "one thread"))
    if record is None:
        return ""
    return markdown(("", "one thread"), [[name, of_turns(rates, 1)] for name, rates in record["rates"].items()])


def kernel_table(found: Found) -> str:
    """Microseconds of a convolution by how it is laid out."""
    record = found.get(key_of(kernels.SECTION, kernels.TITLE))
    if record is None:
        return ""
    lines = [
        [name, of_turns(times[kernels.PLAIN], 0)]
        + [of_turns(ratios(times[way], times[kernels.PLAIN])) for way in kernels.OTHERS]
        for name, times in record["us"].items()
    ]
    return markdown(("", f"us, {kernels.PLAIN}", *(f"{way} / that" for way in kernels.OTHERS)), lines)


def sampling_tables(found: Found) -> str:
    """Microseconds an episode, and what came through actors."""
    record, parts = found.get(key_of(sampled.SECTION, "in one process")), []
    if record is not None:
        times = record["us_an_episode"]
        lines = [
            [
                name,
                of_turns(us, 1),
                f"{1e6 / statistics.median(us):,.0f}",
                of_turns(ratios(us, times["metaray"])),
                str(len(us)),
            ]
            for name, us in times.items()
        ]
        parts.append(markdown(("", "us an episode", "episodes/s", "its time over metaray's", "turns"), lines))
    streamed = [(name, r["episodes_a_second"]) for name, r in found.items() if name.startswith("sampling: streamed")]
    if streamed:
        rows = [
            [name.removeprefix("sampling: "), of_turns([float(rate) for rate in rates], 0)] for name, rates in streamed
        ]
        parts.append(markdown(("", "episodes/s, by the clock"), rows))
    return "\n\n".join(parts)


def memory_table(found: Found) -> str:
    """MiB by contender."""
    record = found.get(key_of(memories.SECTION, memories.TITLE))
    if record is None:
        return ""
    held = record["held"]
    lines = [
        [
            name,
            f"{rise(one) / 2**20:.0f}",
            f"{rise(one) / rise(held[BY_HAND]):.2f}",
            f"{one['peak_bytes'] / 2**20:.0f}",
            f"{one['cpu_s_a_step']:.2f}",
        ]
        for name, one in held.items()
    ]
    return markdown(("", "MiB of the steps", "over by hand", "MiB of the process", "processor s a step"), lines)


def workers_table(found: Found) -> str:
    """Episodes a second by number of workers."""
    record = found.get(key_of(whole_runs.WORKERS, "2 workers against 1"))
    if record is None:
        return ""
    lines = []
    for what, unit in (("episodes_per_s", "workers"), ("bound_episodes_per_s", "processes")):
        one = statistics.median(record[what]["1"])
        for number, rates in record[what].items():
            told = ", ".join(f"{rate:.1f}" for rate in rates)
            name = "1 process of 2 threads" if number == at_once.THREADED else f"{number} {unit}"
            lines.append([name, told, f"{statistics.median(rates) / one:.2f}"])
    return markdown(("", "episodes/s, each run", "over one, medians"), lines)


def start_up_table(found: Found) -> str:
    """Seconds of what begins."""
    record = found.get(key_of(whole_runs.START_UP, "from command to first step"))
    if record is None:
        return ""
    lines = []
    for name, found_of in record["spreads"].items():
        clock, cpu = ("first_step_s", "first_step_cpu_s") if "first_step_s" in found_of else ("seconds", "cpu_s")
        shown = [_spread(found_of[key]) for key in (clock, cpu)]
        phases = [
            f"{key.removesuffix('_s')} {value['median']:g}"
            for key, value in found_of.items()
            if key not in (clock, cpu, "whole_run_cpu_s")
        ]
        lines.append([name.replace("workers_", "first step, --workers "), *shown, ", ".join(phases) or "-"])
    return markdown(("", "s by the clock", "s of processor time", "of which by the clock"), lines)


def _spread(value: Mapping[str, float]) -> str:
    return f"{value['median']:.2f} ({value['lower']:.2f}-{value['upper']:.2f})"


def sources(records: Sequence[Record]) -> list[str]:
    """The machines, versions, commits and commands of all records, and what was skipped or failed."""
    made: dict[str, list[str]] = {}
    for record in records:
        by = record["made"]
        machine = ", ".join(f"{key} {value}" for key, value in by["machine"].items() if key != "instructions")
        told = f"`{by['command']}`, commit {by['commit'][:12]} (code {by['code']}), seed {by['seed']}; {machine}"
        made.setdefault(told, []).append(f"{record['section']}: {record['name']}")
    lines = [f"- {told}: {'; '.join(names)}" for told, names in made.items()]
    for record in records:
        why = record.get("skipped") or record.get("failed")
        if why:
            what = "skipped" if "skipped" in record else "failed"
            lines.append(f"- {what}: {record['section']}: {record['name']}: {why.strip().splitlines()[-1]}")
    return lines or ["Nothing is on record yet."]
