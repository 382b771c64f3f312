"""Peak memory of five inner steps, each contender in a fresh process."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from jobs.benchmarks.cpu.cases import METHODS, TINY, Case, experiment_of, variants
from jobs.benchmarks.cpu.contenders import BY_HAND, REFERENCE, handed_over, require_equal
from jobs.benchmarks.cpu.fresh import json_of
from jobs.benchmarks.cpu.runs import Job, Setting
from jobs.benchmarks.overhead import arrivals
from jobs.benchmarks.peers.client import Failed, Refused
from jobs.benchmarks.peers.learner import Outcome
from metaray.config import replace
from metaray.experiment.experiment import Experiment

SECTION = "memory"
STEPS = 4
RECOMPUTED = "metaray, recompute_inner_steps"
TITLE = "MAML 5 steps, 5-way 1-shot, float32"
ABOUT = f"""The most that a process held (VmHWM of Linux) in {STEPS + 1} meta-steps of {TITLE}, less what it held \
before the first: Python, its libraries and the data. Each in a fresh process; metaray lets malloc keep what tensors \
free, the loop by hand and learn2learn have it as it comes. Losses and norms are checked as for meta-steps."""


def jobs(setting: Setting) -> Iterator[Job]:
    """A single one, whose contenders are compared with each other."""
    (case,) = (case for case in METHODS if case.title == TITLE)
    told = {"steps": STEPS, "size": setting.size._asdict()}
    yield Job(SECTION, TITLE, partial(measured, case, setting), told)


def who_are(experiment: Experiment) -> dict[str, Experiment]:
    """Ours: by execution, and with inner steps computed anew where experiments know that."""
    found = {name: one for name, one in variants(experiment).items() if "channels_last" not in name}
    if "recompute_inner_steps" in Experiment.model_fields:
        found[RECOMPUTED] = replace(experiment, recompute_inner_steps=True)
    return found


def measured(case: Case, setting: Setting) -> dict[str, Any]:
    """Bytes and times, by contender."""
    experiment = experiment_of(case, setting.scratch, setting.size)
    end = [str(STEPS), str(setting.scratch), *(["--tiny"] if setting.size == TINY else [])]
    found: dict[str, Any] = {}
    for name in (*who_are(experiment), BY_HAND):
        found[name] = json_of("jobs.benchmarks.cpu.fresh", ["memory", case.title, name, *end])
        require_equal(name, outcome_of(found[name]), outcome_of(found[REFERENCE]), case.dtype)
    absent: dict[str, str] = {}
    try:
        found["learn2learn"] = theirs(case, experiment, setting)
        require_equal("learn2learn", outcome_of(found["learn2learn"]), outcome_of(found[REFERENCE]), case.dtype)
    except (Refused, Failed) as error:
        absent["learn2learn"] = str(error)
    return {"held": found, "absent": absent}


def outcome_of(found: dict[str, float]) -> Outcome:
    """Of the first meta-step."""
    return Outcome(found["loss"], found["gradient_norm"])


def theirs(case: Case, experiment: Experiment, setting: Setting) -> dict[str, Any]:
    """learn2learn, in a fresh process.

    Raises:
        Refused: if it is not there.
    """
    if "learn2learn" not in setting.peers.versions:
        raise Refused(setting.peers.absent.get("learn2learn") or setting.peers.absent["all"])
    arrays = handed_over(experiment, arrivals(experiment, 1))
    with setting.peers.start("learn2learn") as peer:
        before = peer.ask("memory")["bytes"]
        answer = peer.ask("build", arrays, method=case.method._asdict())
        taken = peer.ask("turn", steps=STEPS)["cpu_s"]
        outcome = {name: answer[name] for name in Outcome._fields}
        return {"before_bytes": before, **peer.ask("memory"), "cpu_s_a_step": taken / STEPS, **outcome}
