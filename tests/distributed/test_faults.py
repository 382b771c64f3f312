"""What is killed on a real Ray cluster leaves no trace in the parameters."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.benchmarks.exactness import PACE_S, experiment_of, placement_of
from jobs.benchmarks.faults import Disturbed, Pace, Until, sampler_killed, worker_frozen, worker_killed
from metaray.distributed.cluster import connect
from metaray.distributed.trainer import OnRay
from metaray.records.result import read_result
from metaray.records.storage import Storage
from tests.training.whole_runs import train_in_process

pytestmark = [
    pytest.mark.ray,
    # Ray Train trips over its own deprecations when it looks at Ray Data's settings.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def undisturbed() -> str:
    """Digest of the parameters of a run in process."""
    with tempfile.TemporaryDirectory() as folder:
        result = train_in_process(experiment_of("maml", 0), Storage(folder), Disturbed(), device="cpu")
    return result.parameters_sha256


Script = Callable[[Disturbed], Iterator[Until]]


def disturbed(script: Script, workers: str, folder: Path) -> tuple[str, Disturbed]:
    flag = folder / "slow"
    flag.touch()
    placement, run = placement_of(workers, 0.5, closely=script is worker_frozen), Disturbed(script, flag)
    connect(placement)
    storage = Storage(str(folder / "run"))
    pace = [Pace(str(flag), PACE_S)]
    OnRay(placement, pace).train(experiment_of("maml", 0), storage, run)
    assert run.finished, run.notes
    return read_result(storage).parameters_sha256, run


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_sampler(undisturbed: str, tmp_path: Path) -> None:
    found, run = disturbed(sampler_killed, "2", tmp_path)
    assert found == undisturbed and not any("starting again" in note for note in run.notes)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_worker(undisturbed: str, tmp_path: Path) -> None:
    found, run = disturbed(worker_killed, "3", tmp_path)
    assert found == undisturbed
    assert "a worker or its node is gone: starting again with 3 workers (attempt 2)" in run.notes
    assert "going on from the checkpoint of step 20" in run.notes


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_that_hangs_is_named(undisturbed: str, tmp_path: Path) -> None:
    found, run = disturbed(worker_frozen, "2", tmp_path)
    assert found == undisturbed
    assert any(note.startswith("worker 1 hangs: no progress for 1") for note in run.notes), run.notes


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["driver", "node", "elastic"])
def test_lost_drivers_and_nodes(fault: str, undisturbed: str) -> None:
    command = ["-m", "jobs.benchmarks.exactness", "--only", "maml", "--workers", "2", "--faults", fault]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and undisturbed[:16] in done.stdout, done.stdout + done.stderr
