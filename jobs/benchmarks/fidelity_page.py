"""docs/fidelity.md from the records that `fidelity` keeps."""

from pathlib import Path
from typing import Any

from metaray.algorithms import ALGORITHMS
from metaray.records.estimate import Estimate

INTRO = """# Fidelity

Algorithms on Omniglot, 5-way, under one protocol; the budget of a run (12 core minutes by default) stands in its row.
Made by `jobs/benchmarks/fidelity.py` from the records in docs/fidelity/; the module's docstring has the protocol,
`jobs/family.py` the hyperparameters. Accuracies are percentages over 1000 meta-test episodes with 95% intervals, of the
step that meta-val chose. Papers trained for longer, some of them larger networks: the difference is what the budget
leaves. The outer learning rate falls to zero with the budget, so a curve that is flat at its end does not say that a
larger budget would not help.

No paper has such a row for CAVIA or the learned optimiser: their own few-shot results, where there are any, are on
other images. The learned optimiser adapts 16 channels where the others have 64, since an LSTM steps for each of the
parameters: compare it with FOMAML on such a network.

"""
COLUMNS = (
    "algorithm",
    "meta-test",
    "before adaptation",
    "paper",
    "difference",
    "meta-val at 1/2, 3/4, end",
    "still rising",
    "episodes",
    "s / 1000 episodes",
    "peak memory",
    "core minutes",
    "seed",
    "commit",
)
RISING = 0.003
"""Meta-val accuracy counts as still rising if the last quarter of training added more than this."""


def page(records: list[dict[str, Any]], out: Path) -> None:
    """Write `out/fidelity.md` and the curves."""
    parts = [INTRO]
    for shots in sorted({record["shots"] for record in records}, reverse=True):
        chosen = {record["algorithm"]: record for record in records if record["shots"] == shots}
        ordered = [chosen[kind] for kind in ALGORITHMS if kind in chosen]
        curves(ordered, out / "fidelity" / f"curves-{shots}shot.png", f"5-way {shots}-shot")
        parts.append(section(ordered, shots))
    (out / "fidelity.md").write_text("\n".join(parts))


def section(records: list[dict[str, Any]], shots: int) -> str:
    """The table of one number of shots, with the commands."""
    lines = [f"## 5-way {shots}-shot", "", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row(record)) + " |" for record in records]
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


def row(record: dict[str, Any]) -> list[str]:
    """The cells of one run."""
    test, paper = Estimate(**record["meta_test"]), record["paper"]
    before = record["before_adaptation"]
    points = [accuracy for _, accuracy in record["curve"]]
    half, three_quarters, last = (points[max(0, round(len(points) * share) - 1)] for share in (0.5, 0.75, 1))
    dirty = "" if record["dirty"] == "false" else " +"
    return [
        record["algorithm"],
        percent(test),
        percent(Estimate(**before)) if before else "-",
        f"{paper['value']} ({paper['source'].split(' arXiv')[0]})" if paper else "-",
        f"{100 * test.mean - float(paper['value'].split('±')[0]):+.2f}" if paper else "-",
        ", ".join(f"{100 * value:.1f}" for value in (half, three_quarters, last)),
        "yes" if last - three_quarters > RISING else "no",
        f"{record['episodes']:,}",
        f"{record['s_per_1000_episodes']:.1f}",
        f"{record['peak_bytes'] / 2**20:.0f} MiB",
        f"{record['core_minutes']:.1f}",
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
