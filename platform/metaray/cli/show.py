"""Printing results, as lines that a person and a script can read, or as JSON."""

from typing import TYPE_CHECKING, Any

from metaray.cli.json_out import print_json

if TYPE_CHECKING:
    from metaray.api.compare import Comparison
    from metaray.api.evaluate import ModelScore
    from metaray.api.search_end import SearchReport
    from metaray.api.upload import Unfinished
    from metaray.records.stream import StreamCurve
    from metaray.tracking.report import Report


def report(report: "Report", *, as_json: bool) -> None:
    """How a run ended."""
    if as_json:
        print_json(report.tree())
    else:
        print(report)


def search(report: "SearchReport", *, as_json: bool) -> None:
    """How a search ended: its trials, and its winner as `train` shows a run."""
    if as_json:
        print_json(report.tree())
    else:
        print(report)


def unfinished(run: "Unfinished", *, as_json: bool) -> None:
    """A run whose metrics were uploaded, and how it goes on."""
    from metaray.errors import redacted

    if as_json:
        tree: dict[str, Any] = {"finished": False, "run": run.run.name}
        tree |= {"tracking_uri": run.tracked.server.shown, "tracking_run": run.tracked.id}
        tree |= {"storage": redacted(run.storage), "step": run.step, "num_steps": run.num_steps}
        print_json(tree | {"notes": list(run.notes)})
        return
    print(f"run: {run.run.name} (MLflow {run.tracked.id} at {run.tracked.server.shown})")
    print(
        f"unfinished: its newest checkpoint is that of step {run.step} of {run.num_steps}; metrics so far are uploaded"
    )
    for note in run.notes:
        print(f"note: {note}")
    print(f"go on: metaray train RECIPE --run {run.run.name} --storage {run.storage}, with its recipe and settings")


def result(result: "ModelScore | Comparison | StreamCurve", *, as_json: bool) -> None:
    """An evaluation, or two learners on the same episodes."""
    if as_json:
        print_json(result.tree())
    else:
        print(result)
