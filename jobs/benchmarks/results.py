"""Writes docs/results.md from MLflow runs: nothing in it is edited by hand.

    python jobs/benchmarks/results.py RUN_ID [RUN_ID ...] [--queries 1 15] [--tracking-uri URI] [--out docs]

What is written of each run is kept in docs/results/, and the page is built from all that is there. Each run brings its
own record: result, protocol, command, seed, commit, data fingerprint, learning curve. Its registered learner is judged
again, here and on the CPU, at each number of queries a class asked for: under transductive batch norm that number is
part of the protocol.
"""

import argparse
import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaray.api.evaluate import ModelScore, evaluate
from metaray.errors import InputError
from metaray.records.result import RESULT, Result
from metaray.tracking.registry import show
from metaray.tracking.server import MlflowServer

PAPER = {
    "omniglot-maml": "98.7 +- 0.4 (Finn et al. 2017)",
    "omniglot-protonet": "98.8 (Snell et al. 2017)",
    "glyphs": "-",
}


@dataclass(frozen=True)
class Run:
    """What MLflow knows of one run."""

    name: str
    experiment: dict[str, Any]
    result: Result
    tags: dict[str, str]
    val: list[tuple[int, float, float]]
    minutes: float
    judged: list[ModelScore]


def read(server: MlflowServer, run_id: str, out: Path, queries: list[int]) -> Run:
    """One run; its learning curve is copied to `out`, its learner judged at each number of `queries`.

    Raises:
        InputError: for a run of regression, whose scores are no accuracies.
    """
    client = server.client
    found = client.get_run(run_id)
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(client.download_artifacts(run_id, "", scratch))
        experiment = json.loads((files / "experiment.json").read_text())
        result = Result.from_json((files / RESULT).read_text())
        if result.quality != "accuracy":
            raise InputError(
                f"run {run_id} ({experiment['name']}) was judged by {result.quality}: this page holds accuracies alone"
            )
        shutil.copy(files / "learning_curve.png", out / f"{experiment['name']}-curve.png")
    started_ms = found.info.start_time
    history = client.get_metric_history(run_id, "val/accuracy")
    val = [(m.step, m.value, (m.timestamp - started_ms) / 60000) for m in history]
    minutes = (found.info.end_time - started_ms) / 60000
    versions = [v.uri for v in show(server, experiment["name"]).versions if v.run_id == run_id]
    judged = [judge(server.uri, versions[0], count) for count in queries] if versions else []
    return Run(experiment["name"], experiment, result, dict(found.data.tags), val, minutes, judged)


def judge(uri: str, model: str, queries: int) -> ModelScore:
    """A registered learner on 1000 meta-test episodes with so many queries a class."""
    settings = [f"evaluation.episodes.queries={queries}"]
    return evaluate(model, episodes=1000, part="meta-test", settings=settings, tracking_uri=uri, trust=[])


def percent(mean: float, half_width: float) -> str:
    """An accuracy with its interval, in percent."""
    return f"{100 * mean:.2f} +- {100 * half_width:.2f}"


def row(run: Run) -> str:
    """A line of the table."""
    result = run.result
    before = "-" if result.before_adaptation is None else percent(*result.before_adaptation[:2])
    cells = [
        run.name,
        percent(*result.meta_test[:2]),
        before,
        percent(*result.before_training[:2]),
        "-" if result.nearest_neighbor is None else percent(*result.nearest_neighbor[:2]),
        f"{run.minutes:.0f} min",
        PAPER.get(run.name, "-"),
    ]
    return "| " + " | ".join(cells) + " |"


def section(run: Run) -> str:
    """Everything that belongs to the number."""
    result, tags = run.result, run.tags
    episodes = run.experiment["num_steps"] * run.experiment["meta_batch_size"]
    again = "\n".join(f"- judged again at {j.protocol}: {j.score}" for j in run.judged)
    curve = "\n".join(f"| {step} | {minutes:.1f} | {100 * value:.2f} |" for step, value, minutes in run.val)
    return f"""## {run.name}

![learning curve](results/{run.name}-curve.png)

- meta-test accuracy: {result.meta_test}, {result.protocol}
{again}
- chosen by meta-val ({result.meta_val}), after step {result.best_step} of {result.num_steps}; {episodes} episodes
- {result.episodes_per_s:.1f} episodes/s; {100 * result.wait_share:.2f}% of step time waiting for episodes
- command: `{re.sub(r"(?<![:/])/[^ :=]*/", "", tags.get("command", ""))}` (folders left out)
- seed {run.experiment["seed"]}, commit {tags.get("git.commit", "unknown")}, torch {tags.get("torch.version")},
  {tags.get("cpu.capability")}
- data fingerprint: {tags.get("source.fingerprint")}
- parameters sha256: {result.parameters_sha256}

| outer step | minutes | meta-val accuracy, % |
|---|---|---|
{curve}
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="MLflow run ids")
    parser.add_argument("--queries", type=int, nargs="*", default=[1, 15])
    parser.add_argument("--tracking-uri")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    options = parser.parse_args()
    server = MlflowServer.of(options.tracking_uri)
    server.prepare()
    kept = options.out / "results"
    kept.mkdir(parents=True, exist_ok=True)
    for run_id in options.runs:
        run = read(server, run_id, kept, options.queries)
        text = json.dumps({"row": row(run), "section": section(run)}, indent=2)
        (kept / f"{run.name}.json").write_text(text + "\n")
    records = [json.loads(path.read_text()) for path in sorted(kept.glob("*.json"))]
    (options.out / "results.md").write_text(page(records))


def page(records: list[dict[str, str]]) -> str:
    """The whole page, of all runs on record."""
    head = (
        "| run | meta-test accuracy, % | before adaptation | before training | 1-NN on pixels | time | paper |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    intro = "# Results\n\nMade by `jobs/benchmarks/results.py` from the records of the runs.\n\n"
    rows = "\n".join(record["row"] for record in records)
    return intro + head + rows + "\n\n" + "\n".join(record["section"] for record in records)


if __name__ == "__main__":
    main()
