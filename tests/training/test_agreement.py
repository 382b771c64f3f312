"""Networks that hold more than what is trained: the same on every worker, after a stop, and in the registry."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from metaray.errors import RunFailed, RunStopped
from metaray.experiment.experiment import Experiment
from metaray.learners.loading import load_learner
from metaray.models.state import kept, marks_of
from metaray.records.checkpoint import load_checkpoint
from metaray.records.result import parameters_sha256
from metaray.records.run import LEARNER
from metaray.records.storage import Storage
from metaray.training.agreement import number_of, require_same_network
from metaray.training.evaluation import evaluate_learner
from metaray.training.outer_loop import initial_state
from tests.training.whole_runs import StopAfter, train
from tests.user_networks import TABLE, WIDTH, own

MakeExperiment = Callable[..., Experiment]
CPU = torch.device("cpu")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "run"))


def test_a_frozen_network_is_judged_in_the_registry_as_in_the_run(
    storage: Storage, make_experiment: MakeExperiment
) -> None:
    experiment = make_experiment(model=own("Held"))
    before = kept(initial_state(experiment, CPU).network)
    result, _ = train(experiment, storage)
    learner = load_learner(Path(storage.root) / LEARNER, trust=["tests"])
    assert evaluate_learner(learner, experiment, "meta-test").estimate == result.meta_test
    assert (
        all(torch.equal(before[name], learner.state[name]) for name in before) and before.keys() == learner.state.keys()
    )
    if result.best_step == result.num_steps:
        assert parameters_sha256(learner.meta | learner.state) == result.parameters_sha256
    assert result.parameters_sha256 != parameters_sha256(learner.meta)


def test_a_stopped_run_with_frozen_parameters_goes_on_to_the_same_bits(
    storage: Storage, make_experiment: MakeExperiment
) -> None:
    experiment = make_experiment(model=own("Held"))
    expected, _ = train(experiment, Storage(f"{storage.root}-undisturbed"))
    with pytest.raises(RunStopped):
        train(experiment, storage, should_stop=StopAfter(3))
    assert train(experiment, storage)[0].parameters_sha256 == expected.parameters_sha256


def table(path: Path, seed: int) -> None:
    save_file({"table": torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))}, path)


@pytest.mark.parametrize("how", ["persistent", "frozen", "buffer", "attribute"])
def test_a_weights_file_that_changed_during_a_stop_is_noticed(
    how: str, storage: Storage, make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TABLE, str(tmp_path / "table"))
    table(tmp_path / "table", 0)
    experiment = make_experiment(model=own("Reading", how=how))
    with pytest.raises(RunStopped):
        train(experiment, storage, should_stop=StopAfter(3))
    table(tmp_path / "table", 1)
    told = (
        r"building the network gives another 'table\S*' than when the run began: a file that is read there has changed"
    )
    with pytest.raises(RunFailed, match=told):
        train(experiment, storage)
    table(tmp_path / "table", 0)
    assert train(experiment, storage)[0].num_steps == 6


def test_the_file_is_not_read_again_at_the_end(
    storage: Storage, make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TABLE, str(tmp_path / "table"))
    table(tmp_path / "table", 0)

    def gone() -> bool:
        (tmp_path / "table").unlink(missing_ok=True)
        return False

    assert train(make_experiment(model=own("Reading", how="frozen")), storage, should_stop=gone)[0].num_steps == 6


def test_checkpoints_of_before_say_nothing_of_the_network(storage: Storage, make_experiment: MakeExperiment) -> None:
    require_same_network(marks_of({"a": torch.ones(2)}), {}, lambda value: [value], alike=True)
    experiment = make_experiment()
    with pytest.raises(RunStopped):
        train(experiment, storage, should_stop=StopAfter(3))
    assert load_checkpoint(storage, initial_state(experiment, CPU)).progress.network == {}


@pytest.mark.parametrize("alike", [True, False])
def test_workers_that_build_different_networks_are_found_out(alike: bool) -> None:
    """Unless they have different processors, of which a note tells already."""
    mine, others = (marks_of({"table": torch.full((3,), value)}) for value in (1.0, 2.0))
    gather = lambda value: [value, number_of(others) if value else 0]  # noqa: E731
    if not alike:
        require_same_network(mine, {}, gather, alike=False)
        return
    with pytest.raises(RunFailed, match="build networks with different frozen parameters or buffers: .* on all nodes"):
        require_same_network(mine, {}, gather, alike=True)


def test_all_workers_hear_of_a_change_on_one() -> None:
    marks = marks_of({"table": torch.ones(3)})
    with pytest.raises(RunFailed, match="gives on another node other tensors than when the run began"):
        require_same_network(marks, marks, lambda value: [value, 1], alike=True)
