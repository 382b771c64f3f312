"""What a rank does before its first step, so that all compute alike."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from metaray.errors import RunFailed
from metaray.experiment.experiment import Experiment
from metaray.records.execution import Executed, read_executed, write_executed
from metaray.records.storage import Storage
from metaray.training import readiness
from metaray.training.agreement import require_same_execution
from metaray.training.outer_loop import initial_state
from metaray.training.readiness import Ground, executed_by, made_ready

CPU = torch.device("cpu")
MakeExperiment = Callable[..., Experiment]


def ground(folder: Path, said: list[str], others: Callable[[int], list[int]] = lambda mine: [mine]) -> Ground:
    return Ground(Storage(str(folder)), CPU, True, others, lambda kind, text: said.append(f"{kind}: {text}"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Executed(kind="each", convolutions="plain", data_on="host", most_workers=4)),
        ({"chunk_size": 3}, Executed(kind="batched", convolutions="grouped", data_on="host", most_workers=2)),
        (
            {"chunk_size": 2, "execution": "each"},
            Executed(kind="each", convolutions="plain", data_on="host", most_workers=2),
        ),
    ],
)
def test_the_ordinary_is_written_but_not_told(
    changes: dict[str, Any], expected: Executed, make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    said: list[str] = []
    experiment = make_experiment(meta_batch_size=4, **changes)
    here = ground(tmp_path, said)
    state = initial_state(experiment, CPU)
    _, executed = made_ready(experiment, executed_by(experiment, here), state, here)
    assert read_executed(here.storage) == executed == expected
    other = replace(here, data_on="device")
    made_ready(experiment, executed_by(experiment, other, 2), state, other)
    assert read_executed(here.storage) == expected.model_copy(update={"data_on": "device"}), "it changes no bits"
    assert not said


def test_only_one_rank_writes_and_only_what_is_new(
    make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Executed] = []

    def write(storage: Storage, executed: Executed) -> None:
        written.append(executed)
        write_executed(storage, executed)

    monkeypatch.setattr(readiness, "write_executed", write)
    experiment, here = make_experiment(), ground(tmp_path, [])
    for who, times in ((replace(here, writes=False), 0), (here, 1), (here, 1)):
        made_ready(experiment, executed_by(experiment, who), initial_state(experiment, CPU), who)
        assert len(written) == times


def gpu(here: Ground) -> Ground:
    return replace(here, device=torch.device("cuda"))


@pytest.mark.parametrize(
    ("record", "unfolds", "told"),
    [
        (None, False, True),  # of before there were records, and unfolded convolutions
        (Executed(kind="batched", device="cuda", why="by hand"), True, False),  # of before they were written down
        (Executed(kind="batched", device="cuda", convolutions="grouped"), False, False),
        (Executed(kind="batched", device="cuda", convolutions="unfolded"), True, False),
    ],
)
def test_a_run_keeps_the_convolutions_that_it_was_begun_with(
    record: Executed | None, unfolds: bool, told: bool, make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    said: list[str] = []
    here = gpu(ground(tmp_path, said))
    if record is not None:
        write_executed(here.storage, record)
    experiment = make_experiment(chunk_size=2)
    state = initial_state(experiment, CPU)
    state.step = 3
    strategy, _ = made_ready(experiment, executed_by(experiment, here, 3), state, here)
    assert (strategy.kind, strategy.unfolds) == ("batched", unfolds)
    found = read_executed(here.storage)
    assert found is not None
    assert found.convolutions == ("unfolded" if unfolds else "grouped")
    assert any("goes on with those that it had then (convolutions: grouped)" in text for text in said) == told


def test_a_run_that_moves_to_another_kind_of_device_is_written_down_anew(
    make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it can then fall back, as one that begins."""
    experiment, here = make_experiment(chunk_size=2), ground(tmp_path, [])
    state = initial_state(experiment, CPU)
    made_ready(experiment, executed_by(experiment, here), state, here)
    state.step, there = 3, gpu(here)
    monkeypatch.setattr(readiness, "decide", lambda *_: Executed(kind="compiled", device="cuda"))
    monkeypatch.setattr(readiness, "_warm_up", lambda *_: (_ for _ in ()).throw(RuntimeError("no triton")))
    _, executed = made_ready(experiment, executed_by(experiment, there, 3), state, there)
    assert read_executed(here.storage) == executed
    assert (executed.device, executed.kind, executed.convolutions) == ("cuda", "batched", "unfolded")
    assert "no triton" in executed.why


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("convolutions_of", lambda *_: "unfolded"),
        ("metaray_version", lambda: "0.0.1"),
        ("chunk_size_of", lambda *_: 4),
    ],
)
def test_plain_ranks_with_other_kernels_stop_the_run(
    name: str, other: Any, make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, said = make_experiment(chunk_size=2), dict[str, list[int]]()

    def rank(who: str, answers: list[int] | None) -> None:
        said[who] = []

        def gather(mine: int) -> list[int]:
            said[who].append(mine)
            return [mine] if answers is None else [answers[len(said[who]) - 1], mine]

        here = ground(tmp_path / who, [], gather)
        made_ready(experiment, executed_by(experiment, here), initial_state(experiment, CPU), here)

    rank("first", None)
    monkeypatch.setattr(readiness, name, other)
    what = {
        "convolutions_of": "how convolutions are computed",
        "metaray_version": "metaray's version",
        "chunk_size_of": "how the meta-batch is cut",
    }[name]
    answers = [*said["first"], *[0] * 10]
    with pytest.raises(RunFailed, match=f"in different ways: they differ in .*{what}"):
        rank("second", answers)


def test_a_run_goes_on_as_it_was_begun(
    make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ground(tmp_path, [])
    begun = Executed(kind="batched", why="there was no compiler")
    write_executed(here.storage, begun)
    experiment = make_experiment(execution="compiled", chunk_size=2)
    assert executed_by(experiment, here) == begun
    write_executed(here.storage, Executed(kind="compiled"))
    monkeypatch.setattr(readiness, "compiler_lacking", lambda device: "there is no compiler")
    with pytest.raises(RunFailed, match="begun with execution=compiled, but there is no compiler"):
        executed_by(experiment, here)


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("mine", [True, False])
def test_what_fails_to_compile_anywhere_falls_back_everywhere(
    step: int, mine: bool, make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first step; a run that has begun so cannot go on otherwise."""

    def warm_up(*_: object) -> None:
        if mine:
            raise RuntimeError("no space left on device\nand more")

    monkeypatch.setattr(readiness, "_warm_up", warm_up)
    said: list[str] = []
    experiment = make_experiment(execution="compiled")
    both_compile = readiness.KINDS.index("compiled")
    here = ground(tmp_path, said, lambda one: [one, one if one == both_compile or one > 1 else int(not mine)])
    state = initial_state(experiment, CPU)
    state.step = step
    if step:
        with pytest.raises(RunFailed, match="was begun with execution=compiled, which fails here"):
            made_ready(experiment, Executed(kind="compiled"), state, here)
        return
    _, executed = made_ready(experiment, Executed(kind="compiled"), state, here)
    why = "(RuntimeError: no space left on device)" if mine else "another worker"
    assert executed.kind == "each"
    assert why in executed.why
    assert read_executed(here.storage) == executed
    assert said == ["phase: compiling", f"note: {executed.why}"]


def test_where_one_rank_has_no_compiler_none_compiles(
    make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All ask each other equally often: who waits for an answer that nobody gives would hang."""
    monkeypatch.setattr(readiness, "_warm_up", lambda *_: pytest.fail("compiled"))
    experiment = make_experiment(execution="compiled")
    lacks, has = Executed(kind="each", why="there is no compiler"), Executed(kind="compiled")
    counts = []
    for mine, place in ((lacks, 0), (has, 1)):
        asked: list[int] = []
        said: list[str] = []

        def gather(one: int, asked: list[int] = asked, place: int = place) -> list[int]:
            asked.append(one)
            if len(asked) > 1:  # what they agree on by then
                return [one, one]
            return [0, one] if place else [one, 2]

        here = ground(tmp_path / str(place), said, gather)
        strategy, executed = made_ready(experiment, mine, initial_state(experiment, CPU), here)
        assert (strategy.kind, executed.kind) == ("each", "each")
        assert ("another worker cannot" in executed.why) == bool(place)
        assert said == [f"note: {executed.why}"]
        counts.append(len(asked))
    assert counts[0] == counts[1]


def test_what_rank_0_writes_meanwhile_is_not_taken_for_what_was_before(
    make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, fallen = make_experiment(execution="compiled"), Executed(kind="each", why="somewhere it failed")
    storage, asked = Storage(str(tmp_path)), []
    monkeypatch.setattr(readiness, "_warm_up", lambda *_: None)

    def gather(one: int) -> list[int]:
        asked.append(one)
        if len(asked) <= 2:  # what it is going to do, and by which kernels
            return [one, one]
        write_executed(storage, fallen)  # by a rank that is quicker
        return [one, 1]

    here = Ground(storage, CPU, False, gather, lambda kind, text: None)
    _, executed = made_ready(experiment, Executed(kind="compiled"), initial_state(experiment, CPU), here)
    assert executed.kind == "each"


def test_another_compiler_than_before_is_told(
    make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "_warm_up", lambda *_: None)
    experiment, said = make_experiment(execution="compiled"), list[str]()
    here = ground(tmp_path, said)
    for version, told in (("g++ 12", False), ("g++ 12", False), ("g++ 13", True)):
        said.clear()
        monkeypatch.setattr(readiness, "compiler_version", lambda device, version=version: version)
        executed = executed_by(experiment, here) if here.storage.exists("execution.json") else Executed(kind="compiled")
        made_ready(experiment, executed, initial_state(experiment, CPU), here)
        assert any("another compiler than before (g++ 12 -> g++ 13): bits may differ" in one for one in said) == told
    found = read_executed(here.storage)
    assert found is not None
    assert found.compiler == "g++ 12"


def test_a_rank_that_compiles_is_alive(
    make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes no progress for some minutes is killed: a compiler may need more."""
    beats, enough = list[int](), Event()

    def alive() -> None:
        beats.append(1)
        if len(beats) == 3:
            enough.set()

    monkeypatch.setattr(readiness, "ALIVE_EVERY_S", 0.01)
    monkeypatch.setattr(readiness, "_warm_up", lambda *_: enough.wait(60))
    here = replace(ground(tmp_path, []), alive=alive)
    made_ready(make_experiment(), Executed(kind="compiled"), initial_state(make_experiment(), CPU), here)
    assert enough.is_set()


def test_what_has_gone_without_a_record_went_line_by_line(
    make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "decide", lambda *_: Executed(kind="graph"))
    here = ground(tmp_path, [])
    assert executed_by(make_experiment(chunk_size=2), here, 0).kind == "graph"
    assert executed_by(make_experiment(chunk_size=2), here, 3).kind == "batched"


def test_ranks_that_compute_otherwise_stop_the_run_by_name() -> None:
    require_same_execution({"the compiler": "g++ 12", "what was compiled": "abc"}, lambda mine: [mine, mine])
    with pytest.raises(RunFailed, match="differ in the compiler, what was compiled"):
        require_same_execution({"the compiler": "g++ 12", "what was compiled": "a"}, lambda mine: [mine, mine + 1])
