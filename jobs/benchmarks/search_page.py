"""docs/search.md, built from the records of `jobs.benchmarks.search`."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from metaray.tuning.search import INNER_LR

HEAD = """# Searching the inner learning rate

Built by `jobs/benchmarks/search.py` from the records in `search/`; nothing here is edited by hand.
"""


def page(records: Mapping[str, Mapping[str, Any]]) -> str:
    """The page in Markdown."""
    parts = [HEAD]
    if "omniglot" in records:
        parts.append(_omniglot(records["omniglot"]))
    if "pbt" in records:
        parts.append(_population(records["pbt"]))
    return "\n".join(parts)


def _omniglot(record: Mapping[str, Any]) -> str:
    found = record["found"]
    untuned, grid, asha = found["untuned"], found["grid"], found["asha"]
    first = ("untuned", f"{untuned['inner_lr']:g}", "1", str(untuned["episodes"]), _accuracy(untuned["meta_test"]))
    rows = [first, _row("full grid", grid), _row("random search, ASHA", asha)]
    above = _low(asha["meta_test"]) > _high(untuned["meta_test"])
    within = asha["meta_test"]["mean"] >= _low(grid["meta_test"])
    share = _trained(asha) / _trained(grid)
    lines = [
        "## Omniglot, 5-way 1-shot MAML",
        "",
        f"Every whole trial sees {untuned['episodes']} episodes. The winner is chosen on meta-val, and judged on the "
        f"first {untuned['meta_test']['episodes']} episodes of meta-test.",
        "",
        "| | inner learning rate | trials | episodes trained on | meta-test accuracy |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"- The search's interval lies {'above' if above else 'not above'} the untuned run's.",
        f"- ASHA's winner is {'no worse than' if within else 'below'} the interval of the full grid's, with "
        f"{share:.0%} of its episodes.",
        _packing(grid, found["bare"]),
        "",
        "Meta-val accuracy by inner learning rate (best evaluation):",
        "",
        "| grid | | ASHA | | |",
        "|---|---|---|---|---|",
        *_curves(grid["trials"], asha["trials"]),
        "",
        f"`{record['command']}`, seed {record['seed']}, commit {record['commit'][:12]}",
        "",
    ]
    return "\n".join(lines)


def _row(name: str, search: Mapping[str, Any]) -> tuple[str, ...]:
    inner_lr = search["winner"]["settings"][INNER_LR]
    count = len(search["trials"])
    return name, f"{inner_lr:.4g}", str(count), str(_trained(search)), _accuracy(search["meta_test"])


def _trained(search: Mapping[str, Any]) -> int:
    return sum(trial["episodes"] for trial in search["trials"])


def _packing(grid: Mapping[str, Any], bare: Mapping[str, Any]) -> str:
    count, at_once = len(grid["trials"]), bare["at_once"]
    together, alone = (
        grid["wall_s"] / (count * statistics.fmean(bare[key]) / at_once) for key in ("together_s", "alone_s")
    )
    return (
        f"- Packing: the grid's {count} trials took {grid['wall_s']:.0f} s, {at_once} at once. The same trainings "
        f"without Ray ({len(bare['alone_s'])} of them measured), their sum divided by {at_once}: "
        f"{together:.2f} times that where {at_once} run at once, {alone:.2f} times where each has the machine alone."
    )


def _curves(grid: Sequence[Mapping[str, Any]], asha: Sequence[Mapping[str, Any]]) -> list[str]:
    def cells(trials: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
        ordered = sorted(trials, key=lambda trial: trial["settings"][INNER_LR])
        return [
            (f"{t['settings'][INNER_LR]:.4g}", _accuracy(t["best"]) if t["best"] else "-", t["status"]) for t in ordered
        ]

    rows = zip(cells(grid), cells(asha), strict=True)
    return [f"| {a[0]} | {a[1]} | {b[0]} | {b[1]} | {b[2]} |" for a, b in rows]


def _population(record: Mapping[str, Any]) -> str:
    found = record["found"]
    schedule = found["winner"]["settings"][INNER_LR]
    pairs = zip(schedule["steps"], schedule["values"], strict=True)
    steps = ", ".join(f"{value:.4g} from step {step}" for step, value in pairs)
    same = found["parameters_sha256"] == found["replayed_sha256"]
    return "\n".join(
        [
            "## Population-based training on sinusoids",
            "",
            f"{found['search']['trials']} members, {found['search']['generations']} generations, "
            f"{found['search']['episodes']} episodes each; meta-test mse of the winner "
            f"{found['meta_test']['mean']:.4f} +- {found['meta_test']['half_width']:.4f}.",
            "",
            f"The schedule that it found: {steps}.",
            "",
            "![the members' schedules](search/pbt-schedule.png)",
            "",
            f"Trained again from its experiment alone, the winner's parameters are "
            f"{'the same' if same else 'OTHERS'}: `{found['parameters_sha256']}`, `{found['replayed_sha256']}`.",
            "",
            f"`{record['command']}`, seed {record['seed']}, commit {record['commit'][:12]}",
            "",
        ]
    )


def _accuracy(estimate: Mapping[str, float]) -> str:
    mean = estimate.get("mean", estimate.get("value", float("nan")))
    return f"{100 * mean:.2f} +- {100 * estimate['half_width']:.2f} %"


def _low(estimate: Mapping[str, float]) -> float:
    return estimate["mean"] - estimate["half_width"]


def _high(estimate: Mapping[str, float]) -> float:
    return estimate["mean"] + estimate["half_width"]
