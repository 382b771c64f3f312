"""What a rank does before its first step, so that all compute alike."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

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


def test_the_ordinary_is_neither_written_nor_told(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    said: list[str] = []
    experiment = make_experiment()
    here = ground(tmp_path, said)
    _, executed = made_ready(experiment, executed_by(experiment, here), initial_state(experiment, CPU), here)
    assert executed == Executed(kind="each")
    assert not said
    assert read_executed(here.storage) is None


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
    here = ground(tmp_path, said, lambda one: [one, one if one == both_compile else int(not mine)])
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
        if len(asked) == 1:  # what it is going to do
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
