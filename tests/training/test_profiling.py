"""A profile of some steps of a run, which changes none of its bits."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from metaray import phases
from metaray.algorithms import IMAML, MAML, Reptile
from metaray.algorithms.algorithm import Algorithm
from metaray.errors import InputError, RunStopped
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.records.result import Result
from metaray.records.run import PROFILE_TABLE, PROFILE_TRACE, Run
from metaray.records.storage import Storage
from metaray.training.in_process import InProcess
from metaray.training.outer_loop import Step
from metaray.training.place import Extent
from metaray.training.profiling import MOST_STEPS, STEPS, WARM_UP, profiled, steps_to_profile
from metaray.training.reduction import LocalReducer, Reducer
from tests.training.whole_runs import Memory, StopAfter, train

MakeExperiment = Callable[..., Experiment]
CPU = torch.device("cpu")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "runs" / "one"))


def train_profiled(
    experiment: Experiment, storage: Storage, count: int, should_stop: Callable[[], bool] = lambda: False
) -> tuple[Result, Memory]:
    memory = Memory()
    InProcess("cpu").train(experiment, storage, memory, Extent(should_stop=should_stop, profile=count))
    return Run("one", storage).result, memory


def lines_of(storage: Storage) -> dict[str, float]:
    """Share of each row of the table, in percent."""
    rows = [line.split("%")[0].rsplit(maxsplit=1) for line in storage.read(PROFILE_TABLE).decode().splitlines()]
    return {row[0]: float(row[1]) for row in rows if len(row) == 2 and row[1].replace(".", "").isdigit()}


def trace_of(storage: Storage) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(gzip.decompress(storage.read(PROFILE_TRACE)))["traceEvents"]
    return events


def steps(count: int) -> Iterator[Step]:
    for number in range(count):
        yield Step(number, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, stop=False)


def test_a_profiled_run_is_the_same_run(storage: Storage, make_experiment: MakeExperiment, tmp_path: Path) -> None:
    experiment = make_experiment(evaluation=Evaluation(every=4, val_episodes=6, test_episodes=8))
    result, memory = train_profiled(experiment, storage, 2)
    plain, _ = train(experiment, Storage(str(tmp_path / "plain")))
    assert result.parameters_sha256 == plain.parameters_sha256
    assert (result.meta_test, result.meta_val_scores) == (plain.meta_test, plain.meta_val_scores)
    assert not Path(tmp_path / "plain" / "profile").exists()
    assert f"profile: {storage.shown}/{PROFILE_TABLE}, and {PROFILE_TRACE}" in memory.notes()


def test_the_table_says_where_a_step_goes(storage: Storage, make_experiment: MakeExperiment) -> None:
    train_profiled(make_experiment(evaluation=Evaluation(every=5, val_episodes=6, test_episodes=8)), storage, 2)
    head, durations, *_ = storage.read(PROFILE_TABLE).decode().splitlines()
    assert head.startswith("profile of steps 3 to 4 on rank 0 of 1, cpu, threads: ")
    assert "ms in step 1, without the profiler; peak memory " in durations
    shares = lines_of(storage)
    here = {name: share for name, share in shares.items() if name in phases.PHASES or name == "rest of the step"}
    wanted = set(phases.PHASES) - {"sampling episodes"} | {"rest of the step"}
    assert set(here) == wanted  # step 4 is followed by an evaluation and a checkpoint
    assert all(0 <= share <= 100 for share in here.values())
    assert sum(here.values()) == pytest.approx(100, abs=0.05 * len(here))
    assert {"aten::addmm", "aten::linear", "aten::mm", "aten::copy_"} & set(shares)


def test_the_trace_holds_the_steps_that_were_profiled(storage: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment()
    train_profiled(experiment, storage, 2)
    marks = [event["name"] for event in trace_of(storage) if event.get("cat") == "user_annotation"]
    assert sum(name.startswith("ProfilerStep#") for name in marks) == 2
    assert marks.count("outer backward") == 2 * experiment.meta_batch_size
    assert marks.count("optimiser") == 2


SHORT = (
    MAML(inner_lr=0.1),
    Reptile(inner_lr=0.1, inner_steps=2, eval_steps=1),
    IMAML(inner_lr=0.1, inner_steps=2, cg_steps=1),
)


@pytest.mark.parametrize("algorithm", SHORT, ids=lambda algorithm: algorithm.kind)
def test_each_kind_of_meta_gradient_has_an_inner_loop(
    algorithm: Algorithm, storage: Storage, make_experiment: MakeExperiment
) -> None:
    few = Evaluation(every=0, val_episodes=2, test_episodes=2)
    train_profiled(make_experiment(algorithm=algorithm, evaluation=few), storage, 1)
    assert lines_of(storage)["inner loop"] > 0


def test_it_goes_on_from_a_checkpoint(storage: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(num_steps=8)
    with pytest.raises(RunStopped):
        train_profiled(experiment, storage, 5, StopAfter(2))
    assert not storage.exists(PROFILE_TABLE)
    assert phases.phase("inner loop") is phases.phase("query pass")  # nobody marks them any more
    assert not torch.autograd.profiler._is_profiler_enabled
    left = experiment.num_steps - Run("one", storage).saved_steps[-1]
    train_profiled(experiment, storage, left - WARM_UP)
    assert storage.read(PROFILE_TABLE).decode().startswith("profile of steps 5 to 7 ")


def test_a_storage_that_takes_no_profile_ends_no_run(
    storage: Storage, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Storage.write

    def refuse(self: Storage, name: str, data: bytes) -> None:
        if name.startswith("profile/"):
            raise OSError("no room")
        write(self, name, data)

    monkeypatch.setattr(Storage, "write", refuse)
    result, memory = train_profiled(make_experiment(), storage, 1)
    assert result.num_steps == 6
    assert "the profile could not be written: no room. Training goes on without" in memory.notes()


def test_other_ranks_only_pass_steps_on(storage: Storage) -> None:
    class Second(Reducer):
        rank, world_size = 1, 2
        sum_ = join = None  # type: ignore[assignment]

    seen = list(profiled(steps(6), 2, storage, CPU, Second(), pytest.fail))
    assert [step.step for step in seen] == list(range(6)) and not storage.exists(PROFILE_TABLE)


def test_too_few_steps_leave_no_profile(storage: Storage) -> None:
    seen = list(profiled(steps(WARM_UP + 1), 2, storage, CPU, LocalReducer(), pytest.fail))
    assert len(seen) == WARM_UP + 1 and not storage.exists(PROFILE_TABLE)


def test_how_many_steps(storage: Storage, make_experiment: MakeExperiment) -> None:
    run, experiment = Run("one", storage), make_experiment(num_steps=WARM_UP + STEPS)
    assert steps_to_profile(False, run, experiment) == steps_to_profile(0, run, experiment) == 0
    assert steps_to_profile(True, run, experiment) == STEPS
    assert steps_to_profile(2, run, experiment) == 2


@pytest.mark.parametrize(
    ("count", "num_steps", "said"),
    [
        (
            4,
            6,
            "--profile 4 needs 3 steps to warm up and 4 to look at, but the run has 6 (num_steps): --profile 3",
        ),
        (1, 3, "--profile 1 needs 3 steps to warm up and 1 to look at, but the run has 3 (num_steps): raise"),
        (-1, 6, f"--profile -1: give a number of outer steps from 1 to {MOST_STEPS}"),
        (MOST_STEPS + 1, 999, f"--profile {MOST_STEPS + 1}: give a number of outer steps from 1 to {MOST_STEPS}"),
    ],
)
def test_what_cannot_be_profiled_is_refused(
    count: int, num_steps: int, said: str, storage: Storage, make_experiment: MakeExperiment
) -> None:
    with pytest.raises(InputError) as refused:
        steps_to_profile(count, Run("one", storage), make_experiment(num_steps=num_steps))
    assert str(refused.value).startswith(said)


def test_torch_is_told_to_print_nothing(storage: Storage, make_experiment: MakeExperiment) -> None:
    train_profiled(make_experiment(), storage, 1)
    assert os.environ["KINETO_LOG_LEVEL"] == "6"


@pytest.mark.slow
def test_torch_prints_nothing(tmp_path: Path, make_experiment: MakeExperiment) -> None:
    """Slow: a process of its own, in which nothing else has woken torch's profiler before."""
    (tmp_path / "one.json").write_text(make_experiment().to_json())
    words = ["train", "one.json", "--profile", "1", "--tracker", "none", "--no-register", "--workers", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "KINETO_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", "metaray", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "profiler_start" not in done.stdout + done.stderr
