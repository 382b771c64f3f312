"""What tests of searches share: small searches, and training that only pretends, in no time, on a real ledger."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from metaray.algorithms.families.inner_lr import Schedule
from metaray.experiment.experiment import Experiment
from metaray.manifest import sealed
from metaray.records.checkpoint_files import CHECKPOINTS_FOLDER, Progress, checkpoint_name, keep_checkpoints
from metaray.records.journal import Journal, Metric, read_journal
from metaray.tuning.ledger import Entry, Ledger
from metaray.tuning.proposers import Next, Proposer, Work
from metaray.tuning.search import INNER_LR, Search

LR = "loguniform(1e-3, 1)"


def make_search(experiment: Experiment, space: Mapping[str, Any] | None = None, **fields: Any) -> Search:
    """A search for the inner learning rate in four trials; keyword arguments are fields."""
    given = {"experiment": experiment, "space": space or {INNER_LR: LR}, "trials": 4, **fields}
    return Search.parse(given, where="test")


def rate_at(experiment: Experiment, step: int) -> float:
    """The inner learning rate of an outer step."""
    rate: Any = experiment.algorithm.inner_lr  # type: ignore[attr-defined]
    if not isinstance(rate, Schedule):
        return float(rate)
    return [value for begins, value in zip(rate.steps, rate.values, strict=True) if begins <= step][-1]


def pretend(ledger: Ledger, work: Work) -> None:
    """Train a trial to where its work pauses: each step adds what its rate is worth to what the journal says already.

    So a trial that begins with another one's state goes on from that one's score.
    """
    entry, run = ledger.entry(work.number), ledger.run_of(work.number)
    experiment, step = entry.experiment, ledger.step_of(work.number)
    key = f"val/{ledger.search.optimises.name}"
    known = {metric.step: metric.value for metric in read_journal(run) if metric.key == key}
    worth, journal = known.get(step, 0.0), Journal(run)
    end = experiment.num_steps if work.until is None else min(work.until, experiment.num_steps)
    while step < end:
        worth -= abs(math.log10(rate_at(experiment, step)) + 1)
        step += 1
        if step == experiment.num_steps or step % experiment.evaluation.every == 0:
            journal.append([Metric(key, worth, step, 0)])
    journal.flush(now=True)
    checkpoint(ledger, work.number, step)
    keep_checkpoints(run, [step])
    if step == experiment.num_steps:
        ledger.end(work.number, "finished")


def checkpoint(ledger: Ledger, number: int, step: int) -> None:
    """Write what looks like a checkpoint."""
    files = {"state.safetensors": b"", "progress.json": json.dumps(asdict(Progress(step=step))).encode()}
    ledger.run_of(number).write_folder(f"{CHECKPOINTS_FOLDER}/{checkpoint_name(step)}", sealed(files))


def carry_out(proposer: Proposer) -> list[Work]:
    """Do all that a proposer proposes, one after the other; returns what it was."""
    done: list[Work] = []
    while (work := proposer.next(())) != "done":
        assert isinstance(work, Work), "nothing runs, and it waits"
        done.append(work)
        pretend(proposer.ledger, work)
        assert len(done) < 1000
    return done


def works(proposer: Proposer, running: list[int]) -> list[Next]:
    """What a proposer proposes while nothing ends, up to the first that is no work; notes in `running` what runs."""
    found: list[Next] = []
    while not found or isinstance(found[-1], Work):
        found.append(proposer.next(running))
        if isinstance(found[-1], Work):
            running.append(found[-1].number)
        assert len(found) < 1000
    return found


def entries(ledger: Ledger) -> list[Entry]:
    """All trials, as they are on disk."""
    fresh = Ledger(ledger.storage, ledger.header)
    return [fresh.entry(number) for number in fresh.numbers()]


def children(uri: str, parent: str) -> list[Any]:
    """The MLflow runs below a search's, by trial."""
    from metaray.tracking.client import open_client

    client = open_client(uri)
    experiment = client.get_run(parent).info.experiment_id
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    return sorted(found, key=lambda run: int(run.data.tags["search.trial"]))
