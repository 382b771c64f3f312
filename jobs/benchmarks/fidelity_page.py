"""docs/fidelity.md from the records that `fidelity` keeps."""

from pathlib import Path
from typing import Any

from metaray.algorithms import ALGORITHMS
from metaray.records.estimate import Estimate

INTRO = """# Fidelity

Algorithms on Omniglot, 5-way, under one protocol, within a small budget: each row says how many episodes it was
trained on, and how many minutes of one core that took. Made by `jobs/benchmarks/fidelity.py` from the records in
docs/fidelity/; the module's docstring has the protocol, `jobs/family.py` the hyperparameters. Accuracies are
percentages over 1000 meta-test episodes with 95% intervals, of the step that meta-val chose.

Papers trained for longer, and some of them larger networks. A difference to a paper's number is that of budget,
network and protocol together: a row below it shows neither that the number is reached with more training nor that it
is not. The outer learning rate falls to zero with the budget, so a curve that is flat at its end does not say that a
larger budget would not help. "-" under "paper" means that the table of published numbers has none for this row.

{gpu}

No paper has such a row for CAVIA or the learned optimiser: their own few-shot results, where there are any, are on
other images. The learned optimiser adapts 16 channels where the others have 64, since an LSTM steps for each of the
parameters: compare it with FOMAML on such a network.

"""
NO_GPU = "**No run on a GPU has been made**, with a paper's budget or another: every figure is of a CPU."
SOME_GPU = "What a run on a GPU reached stands in a column of its own, with its budget and the device."
COLUMNS = (
    "algorithm",
    "meta-test",
    "budget",
    "paper",
    "difference",
    "on a GPU",
    "before adaptation",
    "meta-val at 1/2, 3/4, end",
    "still rising",
    "s / 1000 episodes",
    "peak memory",
    "seed",
    "commit",
)
RISING = 0.003
"""Meta-val accuracy counts as still rising if the last quarter of training added more than this."""


def page(records: list[dict[str, Any]], out: Path) -> None:
    """Write `out/fidelity.md` and the curves."""
    on_gpu = {(record["algorithm"], record["shots"]): record for record in records if not on_cpu(record)}
    parts = [INTRO.format(gpu=SOME_GPU if on_gpu else NO_GPU)]
    for shots in sorted({record["shots"] for record in records if on_cpu(record)}, reverse=True):
        chosen = {record["algorithm"]: record for record in records if record["shots"] == shots and on_cpu(record)}
        ordered = [chosen[kind] for kind in ALGORITHMS if kind in chosen]
        curves(ordered, out / "fidelity" / f"curves-{shots}shot.png", f"5-way {shots}-shot")
        parts.append(section(ordered, shots, {kind: on_gpu[kind, shots] for kind in chosen if (kind, shots) in on_gpu}))
    (out / "fidelity.md").write_text("\n".join(parts))


def on_cpu(record: dict[str, Any]) -> bool:
    """Whether the run was made without a GPU."""
    return str(record["device"]).startswith("CPU")


def section(records: list[dict[str, Any]], shots: int, on_gpu: dict[str, dict[str, Any]]) -> str:
    """The table of one number of shots, with the commands."""
    lines = [f"## 5-way {shots}-shot", "", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row(record, on_gpu.get(record["algorithm"]))) + " |" for record in records]
    missing = [kind for kind in ALGORITHMS if kind not in {record["algorithm"] for record in records}]
    lines += ["", f"Not run: {', '.join(kind for kind in missing if kind != 'nearest_neighbor') or 'none'}."]
    pixels = Estimate(**records[0]["nearest_neighbor"])
    lines += ["", f"Nearest neighbour on pixels, same episodes: {percent(pixels)}."]
    lines += ["", f"![meta-val accuracy by share of the budget](fidelity/curves-{shots}shot.png)", ""]
    protocols: dict[str, list[str]] = {}
    for record in records:
        protocols.setdefault(record["protocol"], []).append(record["algorithm"])
    lines += [f"- {protocol}: {', '.join(kinds)}" for protocol, kinds in protocols.items()]
    lines += ["", "```", *(record["command"] for record in records), "```", ""]
    devices = sorted({f"{record['device']}, torch {record['torch']}" for record in records})
    prints = sorted({record["fingerprint"] for record in records})
    lines += [f"Machine: {'; '.join(devices)}. Data fingerprint: {', '.join(prints)}.", ""]
    return "\n".join(lines)


def budget(record: dict[str, Any]) -> str:
    """What a run was allowed."""
    where = "core minutes" if on_cpu(record) else f"minutes of {record['device']}"
    return f"{record['episodes']:,} episodes, {record['core_minutes']:.1f} {where}"


def row(record: dict[str, Any], on_gpu: dict[str, Any] | None) -> list[str]:
    """The cells of one run, with what the same algorithm reached on a GPU."""
    test, paper = Estimate(**record["meta_test"]), record["paper"]
    before = record["before_adaptation"]
    points = [accuracy for _, accuracy in record["curve"]]
    half, three_quarters, last = (points[max(0, round(len(points) * share) - 1)] for share in (0.5, 0.75, 1))
    dirty = "" if record["dirty"] == "false" else " +"
    return [
        record["algorithm"],
        percent(test),
        budget(record),
        f"{paper['value']} ({paper['source'].split(' arXiv')[0]})" if paper else "-",
        f"{100 * test.mean - float(paper['value'].split('±')[0]):+.2f}" if paper else "-",
        f"{percent(Estimate(**on_gpu['meta_test']))}; {budget(on_gpu)}" if on_gpu else "not run",
        percent(Estimate(**before)) if before else "-",
        ", ".join(f"{100 * value:.1f}" for value in (half, three_quarters, last)),
        "yes" if last - three_quarters > RISING else "no",
        f"{record['s_per_1000_episodes']:.1f}",
        f"{record['peak_bytes'] / 2**20:.0f} MiB",
        str(record["seed"]),
        record["commit"][:7] + dirty,
    ]


def percent(estimate: Estimate) -> str:
    """With its interval."""
    return f"{100 * estimate.mean:.2f} ± {100 * estimate.half_width:.2f}"


def curves(records: list[dict[str, Any]], path: Path, title: str) -> None:
    """Meta-val accuracy against the share of the budget, one line an algorithm."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    styles = ("-", "--", ":", "-.")
    for number, record in enumerate(records):
        last = record["curve"][-1][0]
        x, y = [step / last for step, _ in record["curve"]], [100 * value for _, value in record["curve"]]
        axes.plot(x, y, styles[number // 5 % 4], marker=".", label=record["algorithm"])
    axes.set(xlabel="share of the budget", ylabel="meta-val accuracy, %", title=title)
    axes.grid(alpha=0.3)
    axes.legend(ncols=2, fontsize="small")
    figure.savefig(path, format="png", dpi=110)
