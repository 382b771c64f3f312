"""What a rank does before its first step, so that all compute alike."""

from collections.abc import Callable
from pathlib import Path

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
    here = ground(tmp_path, said, lambda one: [one, int(not mine)])
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


def test_ranks_that_compute_otherwise_stop_the_run_by_name() -> None:
    require_same_execution({"the compiler": "g++ 12", "what was compiled": "abc"}, lambda mine: [mine, mine])
    with pytest.raises(RunFailed, match="differ in the compiler, what was compiled"):
        require_same_execution({"the compiler": "g++ 12", "what was compiled": "a"}, lambda mine: [mine, mine + 1])
